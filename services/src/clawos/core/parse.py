"""Parse at the edge: bytes from outside become frozen values, or an error that names the path of the fault.

msgspec does the work; this module only turns its two exceptions into ours.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from clawos.core.errors import BadRequest, ConfigInvalid

_encoder = msgspec.json.Encoder()


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every value that is parsed from outside: immutable, and unknown fields are refused."""


def from_json[T](data: str | bytes, kind: type[T], what: str) -> T:
    """Parse JSON that a caller sent. Raises BadRequest with the path of what is wrong."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"{what}: {error}") from None


def from_value[T](value: Any, kind: type[T], what: str) -> T:
    """Parse plain dicts and lists (from TOML, say). Raises BadRequest."""
    try:
        return msgspec.convert(value, type=kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise BadRequest(f"{what}: {error}") from None


def _path(kind: type, value: Any) -> Any:
    """The one type of our settings that TOML and msgspec do not have."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def from_toml[T](path: Path, kind: type[T]) -> T:
    """Parse a TOML file. Raises ConfigInvalid naming the file and the path (or line) of what is wrong."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), type=kind, dec_hook=_path)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise ConfigInvalid(f"{path}: {error}", "correct the file and try again") from None
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}", "restore the file and try again") from None


def to_json(value: Any) -> str:
    """Compact JSON of a Record or of plain values."""
    return _encoder.encode(value).decode()


def to_json_line(value: Any) -> bytes:
    return _encoder.encode(value) + b"\n"
