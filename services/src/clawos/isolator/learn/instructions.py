"""eBPF instructions, and jumps to names (include/uapi/linux/bpf.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Register(IntEnum):
    """R0 is what a call returns, R1 to R5 its arguments; the next four outlive calls."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R6 = 6
    R7 = 7
    R8 = 8
    FRAME = 10


class Op(IntEnum):
    LOAD_4 = 0x61
    LOAD_8 = 0x79
    STORE_4 = 0x63
    STORE_8 = 0x7B
    STORE_4_VALUE = 0x62
    STORE_8_VALUE = 0x7A
    ATOMIC_ADD_8 = 0xDB
    MOVE = 0xBF
    MOVE_VALUE = 0xB7
    ADD_VALUE = 0x07
    CALL = 0x85
    EXIT = 0x95
    LOAD_WIDE = 0x18
    JUMP = 0x05
    IF_NOT_EQUAL = 0x5D
    IF_EQUAL_VALUE = 0x15
    IF_NOT_EQUAL_VALUE = 0x55
    IF_NO_MORE_VALUE = 0xB5
    IF_BITS_VALUE = 0x45


class Helper(IntEnum):
    LOOKUP = 1
    UPDATE = 2
    CGROUP_ID = 80
    ANCESTOR_CGROUP_ID = 123
    CURRENT_TASK = 158


_MAP = 1  # BPF_PSEUDO_MAP_FD: the wide constant is a map's descriptor


@dataclass(frozen=True)
class Instruction:
    op: Op
    target: int = 0
    source: int = 0
    offset: int = 0
    value: int = 0
    to: str = ""
    """Where a jump leads; takes the place of the offset."""

    def encode(self, offset: int) -> bytes:
        value = self.value & 0xFFFFFFFF
        return struct.pack("<BBhI", self.op, self.target | self.source << 4, offset, value)


@dataclass(frozen=True)
class Wide:
    """A 64-bit constant, which takes two places."""

    target: int
    value: int
    is_map: bool = False

    def encode(self) -> bytes:
        low, high = self.value & 0xFFFFFFFF, self.value >> 32
        head = struct.pack("<BBhI", Op.LOAD_WIDE, self.target | (_MAP << 4 if self.is_map else 0), 0, low)
        return head + struct.pack("<BBhI", 0, 0, 0, high)


@dataclass(frozen=True)
class Place:
    """A name that jumps lead to."""

    name: str


Part = Instruction | Wide | Place


def call(helper: Helper) -> Instruction:
    return Instruction(Op.CALL, value=helper)


def link(parts: Iterable[Part]) -> bytes:
    """Jumps to names become jumps over so many instructions."""
    parts = tuple(parts)
    places: dict[str, int] = {}
    at = 0
    for part in parts:
        if isinstance(part, Place):
            places[part.name] = at
        at += {Place: 0, Wide: 2, Instruction: 1}[type(part)]
    code = b""
    for part in parts:
        if isinstance(part, Wide):
            code += part.encode()
        elif isinstance(part, Instruction):
            code += part.encode(places[part.to] - len(code) // 8 - 1 if part.to else part.offset)
    return code
