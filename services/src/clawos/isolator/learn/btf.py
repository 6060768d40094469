"""The kernel's own description of its types (BTF): where a tracepoint is, and where a structure's member."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from clawos.isolator.learn.bpf import Unwatchable

_MAGIC = 0xEB9F
_HEAD = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")


class Kind(IntEnum):
    """Those that we look for, or that have more behind their head than others."""

    INT = 1
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    TYPEDEF = 8
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    DECL_TAG = 17
    ENUM64 = 19


_FIXED_BYTES = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}
_EACH_BYTES = {
    Kind.STRUCT: 12,
    Kind.UNION: 12,
    Kind.ENUM: 8,
    Kind.FUNC_PROTO: 8,
    Kind.DATASEC: 12,
    Kind.ENUM64: 12,
}


class Type(NamedTuple):
    """One of more than a hundred thousand."""

    id: int
    name_at: int
    kind: int
    members: int
    bit_fields: bool
    at: int
    """Where in the file what belongs to it begins."""


class Btf:
    def __init__(self, file: Path = Path("/sys/kernel/btf/vmlinux")) -> None:
        """Raises Unwatchable."""
        try:
            self._data = file.read_bytes()
        except OSError as error:
            raise Unwatchable(f"{file}: {error.strerror}", "this needs a kernel with BTF") from None
        magic, _, _, head, types, types_bytes, strings, strings_bytes = _HEAD.unpack_from(self._data)
        if magic != _MAGIC:
            raise Unwatchable(f"{file} holds no BTF of this machine")
        self._types_at, self._types_end = head + types, head + types + types_bytes
        self._strings_at, self._strings_end = head + strings, head + strings + strings_bytes

    def tracepoint(self, name: str) -> int:
        """The type that a program names to attach to a tracepoint. Raises Unwatchable."""
        return self._find(Kind.TYPEDEF, f"btf_trace_{name}").id

    def offset(self, structure: str, *members: str) -> int:
        """Where a member of a member … lies, in bytes. Raises Unwatchable."""
        at, found = 0, self._find(Kind.STRUCT, structure)
        for last, member in enumerate(members, 1 - len(members)):
            for name, type_id, bits in self._members(found):
                if name == member:
                    at += bits // 8
                    if last:
                        found = self._types[type_id - 1]
                    break
            else:
                raise Unwatchable(f"struct {structure} of this kernel has no {'.'.join(members)}")
        return at

    @cached_property
    def _types(self) -> list[Type]:
        return list(self._each())

    def _each(self) -> Iterator[Type]:
        at, number = self._types_at, 0
        while at < self._types_end:
            name_at, info, _ = _TYPE.unpack_from(self._data, at)
            at, number = at + _TYPE.size, number + 1
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            yield Type(number, name_at, kind, members, bool(info >> 31), at)
            at += _FIXED_BYTES.get(kind, 0) + _EACH_BYTES.get(kind, 0) * members

    def _find(self, kind: Kind, name: str) -> Type:
        name_at = self._data.find(f"\0{name}\0".encode(), self._strings_at, self._strings_end)
        name_at += 1 - self._strings_at
        for found in self._types:
            if found.kind == kind and found.name_at == name_at:
                return found
        raise Unwatchable(f"this kernel's BTF has no {name}")

    def _members(self, of: Type) -> Iterator[tuple[str, int, int]]:
        for index in range(of.members):
            name_at, type_id, bits = _MEMBER.unpack_from(self._data, of.at + index * _MEMBER.size)
            start = self._strings_at + name_at
            name = self._data[start : self._data.index(b"\0", start)].decode()
            yield name, type_id, bits & 0xFFFFFF if of.bit_fields else bits
