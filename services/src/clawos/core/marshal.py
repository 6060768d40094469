"""D-Bus values as bytes, for `clawos.core.wire`. Signatures and alignment as in the D-Bus specification.

A client sends few types but receives most (systemd's properties), so both directions are complete.
A variant is the pair (signature, value) when sent
and the bare value when received.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # as in `typing`, whose import alone costs 5 ms of the shell's 80
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_FIXED = {
    "y": ("B", 1),
    "b": ("I", 4),
    "n": ("h", 2),
    "q": ("H", 2),
    "i": ("i", 4),
    "u": ("I", 4),
    "x": ("q", 8),
    "t": ("Q", 8),
    "d": ("d", 8),
    "h": ("I", 4),
}
_ALIGN = {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}


def split(signature: str) -> list[str]:
    """The complete types that a signature holds. Raises ValueError."""
    types, at = [], 0
    while at < len(signature):
        end = _end(signature, at)
        types.append(signature[at:end])
        at = end
    return types


def _end(signature: str, at: int) -> int:
    if at >= len(signature):
        raise ValueError(f"signature {signature!r} ends early")
    kind = signature[at]
    if kind == "a":
        return _end(signature, at + 1)
    if kind in "({":
        closing = ")" if kind == "(" else "}"
        at += 1
        while at < len(signature) and signature[at] != closing:
            at = _end(signature, at)
        if at >= len(signature):
            raise ValueError(f"signature {signature!r} ends early")
        return at + 1
    if kind not in _FIXED and kind not in "sogv":
        raise ValueError(f"signature {signature!r} holds {kind!r}")
    return at + 1


def _alignment(kind: str) -> int:
    first = kind[0]
    return _FIXED[first][1] if first in _FIXED else _ALIGN[first]


def pack(signature: str, values: Sequence[Any]) -> bytearray:
    """Values as little-endian bytes."""
    out = bytearray()
    for kind, value in zip(split(signature), values, strict=True):
        _pack(out, kind, value)
    return out


def _pad(out: bytearray, alignment: int) -> None:
    out.extend(bytes(-len(out) % alignment))


def _pack(out: bytearray, kind: str, value: Any) -> None:
    _pad(out, _alignment(kind))
    first = kind[0]
    if first in _FIXED:
        out.extend(struct.pack("<" + _FIXED[first][0], value))
    elif first in "so":
        data = value.encode()
        out.extend(struct.pack("<I", len(data)) + data + b"\0")
    elif first == "g":
        data = value.encode()
        out.extend(struct.pack("<B", len(data)) + data + b"\0")
    elif first == "v":
        inner, held = value
        _pack(out, "g", inner)
        _pack(out, inner, held)
    elif first == "a":
        _pack_array(out, kind[1:], value)
    else:
        for inner, held in zip(split(kind[1:-1]), value, strict=True):
            _pack(out, inner, held)


def _pack_array(out: bytearray, element: str, values: Any) -> None:
    length_at = len(out)
    out.extend(bytes(4))
    _pad(out, _alignment(element))  # not part of the length, and there even when the array is empty
    start = len(out)
    for value in values.items() if element[0] == "{" else values:
        _pack(out, element, value)
    struct.pack_into("<I", out, length_at, len(out) - start)


def unpack(signature: str, data: bytes, little: bool = True) -> list[Any]:
    """Values from bytes. Raises ValueError when the bytes do not fit the signature."""
    reader = Reader(data, little)
    return [reader.value(kind) for kind in split(signature)]


class Reader:
    """Reads values one after another; offsets count from the start of `data`, as alignment does."""

    def __init__(self, data: bytes, little: bool = True) -> None:
        self._data = data
        self._order = "<" if little else ">"
        self._at = 0

    def value(self, kind: str) -> Any:
        self._align(_alignment(kind))
        first = kind[0]
        if first in _FIXED:
            code, size = _FIXED[first]
            (number,) = struct.unpack(self._order + code, self._take(size))
            return bool(number) if first == "b" else number
        if first in "so":
            return self._text(self.value("u"))
        if first == "g":
            return self._text(self.value("y"))
        if first == "v":
            (inner,) = split(self.value("g"))
            return self.value(inner)
        if first == "a":
            return self._array(kind[1:])
        return tuple(self.value(inner) for inner in split(kind[1:-1]))

    def _array(self, element: str) -> Any:
        length = self.value("u")
        self._align(_alignment(element))
        end = self._at + length
        if end > len(self._data):
            raise ValueError("an array is longer than its message")
        values = []
        while self._at < end:
            values.append(self.value(element))
        return dict(values) if element[0] == "{" else values

    def _text(self, length: int) -> str:
        text = self._take(length).decode()
        self._take(1)
        return text

    def _align(self, alignment: int) -> None:
        self._at += -self._at % alignment

    def _take(self, size: int) -> bytes:
        data = self._data[self._at : self._at + size]
        if len(data) != size:
            raise ValueError("the message ends early")
        self._at += size
        return data
