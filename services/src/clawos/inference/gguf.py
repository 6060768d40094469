"""Reads the header of a GGUF file strictly and with bounds, before llama.cpp sees any of it.

llama.cpp aborts the process on some malformed files. This reader accepts a subset of what it accepts:
little-endian versions 2 and 3, one file, counts and lengths within reason, every tensor inside the file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from clawos.inference.errors import ModelInvalid, ModelMissing

MAX_KEYS = 4096
MAX_TENSORS = 65_536
MAX_NAME_BYTES = 256
MAX_STRING_BYTES = 4 << 20
MAX_ARRAY = 4 << 20
MAX_HEADER_BYTES = 256 << 20
# Longer arrays (vocabularies, merges) are checked and counted, not kept, unless they are our own.
KEPT_ARRAY = 64
OURS = "clawos."
MAX_OURS = 1 << 18

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# Elements and bytes of a block by ggml_type; a test compares this with the library's own table.
BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


@dataclass(frozen=True)
class Count:
    """An array that was checked but not kept."""

    length: int


@dataclass(frozen=True)
class Header:
    """What a GGUF says about itself."""

    metadata: Mapping[str, Any]
    tensors: int
    data_offset: int

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    @property
    def dialect(self) -> str | None:
        """The tool-call dialect that the model was trained on, where it names one of ours."""
        value = self.metadata.get("clawos.dialect")
        return value if isinstance(value, str) else None

    @property
    def chat_template(self) -> str | None:
        value = self.metadata.get("tokenizer.chat_template")
        return value if isinstance(value, str) else None

    @property
    def vocabulary(self) -> int:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return tokens.length if isinstance(tokens, Count) else len(tokens or ())


class _Bad(Exception):
    pass


class _Reader:
    """Reads little-endian values and never past the end of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._limit = min(size, MAX_HEADER_BYTES)
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > self._limit:
            raise _Bad("the header runs past the end of the file")
        data = self._file.read(count)
        if len(data) != count:
            raise _Bad("the header runs past the end of the file")
        self.at += count
        return data

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def string(self, limit: int) -> bytes:
        length = self.u64()
        if length > limit:
            raise _Bad(f"a string of {length} bytes, more than {limit}")
        return self.take(length)

    def name(self, limit: int = MAX_NAME_BYTES) -> str:
        data = self.string(limit)
        if not data or b"\0" in data:
            raise _Bad("a name that is empty or holds a zero byte")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _Bad("a name that is not UTF-8") from None

    def value(self, kind: int, kept: int = KEPT_ARRAY) -> Any:
        """A value of this type; an array of more than `kept` elements is only counted."""
        if kind == _STRING:
            return self.string(MAX_STRING_BYTES).decode(errors="replace")
        if kind == _ARRAY:
            return self._array(kept)
        return self._scalar(kind)

    def _scalar(self, kind: int) -> Any:
        code = _SCALARS.get(kind)
        if code is None:
            raise _Bad(f"a value of the unknown type {kind}")
        data = self.take(struct.calcsize("<" + code))
        if code == "?" and data not in (b"\0", b"\1"):
            raise _Bad("a boolean that is neither 0 nor 1")
        return struct.unpack("<" + code, data)[0]

    def _array(self, kept: int) -> Any:
        kind, length = self.u32(), self.u64()
        if kind == _ARRAY or (kind != _STRING and kind not in _SCALARS):
            raise _Bad(f"an array of the type {kind}")
        if length > MAX_ARRAY:
            raise _Bad(f"an array of {length} elements, more than {MAX_ARRAY}")
        if length <= kept and kind in (_STRING, _BOOL):
            return [self.value(kind) for _ in range(length)]
        if length <= kept:
            code = _SCALARS[kind]
            return list(struct.unpack(f"<{length}{code}", self.take(length * struct.calcsize("<" + code))))
        if kind == _STRING:
            for _ in range(length):
                self.string(MAX_STRING_BYTES)
        else:
            self.take(length * struct.calcsize("<" + _SCALARS[kind]))
        return Count(length)


def read_header(path: Path) -> Header:
    """Read and check the header of a GGUF. Raises ModelMissing or ModelInvalid."""
    try:
        with path.open("rb", buffering=1 << 18) as file:
            size = path.stat().st_size
            return _header(_Reader(file, size), size)
    except FileNotFoundError:
        raise ModelMissing(f"{path} does not exist", "see 'claw model list'") from None
    except _Bad as fault:
        raise ModelInvalid(
            f"{path.name} is not a usable GGUF: {fault}", "fetch the file again, or use another model"
        ) from None
    except OSError as error:
        raise ModelInvalid(
            f"{path} cannot be read: {error.strerror}", f"check its owner and mode with 'ls -l {path}'"
        ) from None


def _header(reader: _Reader, size: int) -> Header:
    if reader.take(4) != b"GGUF":
        raise _Bad("it does not begin with GGUF")
    version, tensors, keys = reader.u32(), reader.u64(), reader.u64()
    if version not in (2, 3):
        raise _Bad(f"version {version}, known are 2 and 3")
    if keys > MAX_KEYS or not 0 < tensors <= MAX_TENSORS:
        raise _Bad(
            f"{keys} keys and {tensors} tensors; at most {MAX_KEYS} and 1 to {MAX_TENSORS} are allowed"
        )
    metadata = _metadata(reader, keys)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 65_536 or alignment & (alignment - 1):
        raise _Bad("general.alignment is not a power of two from 8 to 65536")
    end = _tensors(reader, tensors, alignment)
    data_offset = -(-reader.at // alignment) * alignment
    if data_offset + end > size:
        raise _Bad(f"it is {size} bytes long, its tensors need {data_offset + end}")
    return Header(metadata, tensors, data_offset)


def _metadata(reader: _Reader, keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.name()
        if key in metadata:
            raise _Bad(f"the key {key!r} occurs twice")
        metadata[key] = reader.value(reader.u32(), MAX_OURS if key.startswith(OURS) else KEPT_ARRAY)
    if not isinstance(metadata.get("general.architecture"), str):
        raise _Bad("general.architecture is missing")
    if metadata.get("split.count", 1) not in (0, 1):
        raise _Bad("it is one part of several; join them with llama-gguf-split --merge")
    return metadata


def _tensors(reader: _Reader, tensors: int, alignment: int) -> int:
    """Check each tensor's place. Returns where the last one ends, from the start of the data."""
    names: set[str] = set()
    end = 0
    for _ in range(tensors):
        name = reader.name(63)  # GGML_MAX_NAME with its final zero
        if name in names:
            raise _Bad(f"the tensor {name!r} occurs twice")
        names.add(name)
        dimensions = reader.u32()
        if not 1 <= dimensions <= 4:
            raise _Bad(f"tensor {name!r} has {dimensions} dimensions")
        shape = [reader.u64() for _ in range(dimensions)]
        kind, offset = reader.u32(), reader.u64()
        block = BLOCKS.get(kind)
        if block is None:
            raise _Bad(f"tensor {name!r} is of the unknown type {kind}")
        elements = 1
        for extent in shape:
            elements *= extent
        if not 0 < elements < 1 << 48 or shape[0] % block[0]:
            raise _Bad(f"tensor {name!r} has the shape {shape}")
        # llama.cpp wants the tensors one after the other, each padded to the alignment
        if offset != -(-end // alignment) * alignment:
            raise _Bad(f"tensor {name!r} is not where the one before it ends")
        end = offset + elements // block[0] * block[1]
    return end
