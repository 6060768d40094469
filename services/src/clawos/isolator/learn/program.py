"""The program that counts, in eBPF instructions: one key for each call, place and judged arguments.

It runs at both ends of every system call of the machine and leaves at once where the caller is not in a sandbox.
The tracepoint at a call's beginning lies behind seccomp, the one at its end does not: a call that ends and never
began is one that the filter refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

# Registers, and what is done with them (include/uapi/linux/bpf.h).
_R0, _R1, _R2, _R3, _R4, _REGS, _WANTED, _FRAME = 0, 1, 2, 3, 4, 6, 7, 10
_LOAD_8, _LOAD_4, _STORE_8, _STORE_4, _STORE_8_IMM, _STORE_4_IMM = 0x79, 0x61, 0x7B, 0x63, 0x7A, 0x62
_LOAD_IMM, _MOVE, _MOVE_IMM, _ADD_IMM, _ATOMIC_ADD = 0x18, 0xBF, 0xB7, 0x07, 0xDB
_JUMP, _IF_EQUAL, _IF_NOT_EQUAL, _IF_EQUAL_IMM, _IF_BITS_IMM, _CALL, _EXIT = 0x05, 0x1D, 0x5D, 0x15, 0x45, 0x85, 0x95
_LOOKUP, _UPDATE, _GET_COMM, _CGROUP_ID, _ANCESTOR_ID = 1, 2, 16, 80, 123
_MAP, _NO_EXIST = 1, 1

ENTERED, LEFT = 0, 1
NUMBERS = 1024
KEY = struct.Struct("<QII6I")
"""cgroup id, number, ENTERED or LEFT, low halves of the arguments that the profile judges"""

# What the launcher does before the program begins is its own; its processes bear its name until then.
_LAUNCHER = b"claw-launch".ljust(16, b"\0")
_KEY_AT, _ONE_AT, _INDEX_AT, _COMM_AT = -40, -48, -56, -72


@dataclass(frozen=True)
class Registers:
    """Where struct pt_regs keeps the number and the arguments of a call."""

    number: int
    number_load: int
    arguments: tuple[int, int, int, int, int, int]


REGISTERS = {
    "x86_64": Registers(120, _LOAD_8, (112, 104, 96, 56, 72, 64)),
    "aarch64": Registers(280, _LOAD_4, (272, 8, 16, 24, 32, 40)),
}

_Code = list[bytes | str | tuple[int, int, int, str]]


def assemble(place: int, base: int, level: int, maps: Sequence[int], registers: Registers) -> bytes:
    """`base` is the id of the cgroup, `level` levels below the root, whose descendants are sandboxes; `maps`
    are the descriptors of judged arguments by number, counts, and of a count of what found no room."""
    judged, counts, lost = maps
    code: _Code = [
        _op(_LOAD_8, _REGS, _R1, 0),
        _op(_MOVE_IMM, _R1, imm=level),
        _op(_CALL, imm=_ANCESTOR_ID),
        *_wide(_R2, base),
        (_IF_NOT_EQUAL, _R0, _R2, "out"),
        _op(_MOVE, _R1, _FRAME),
        _op(_ADD_IMM, _R1, imm=_COMM_AT),
        _op(_MOVE_IMM, _R2, imm=16),
        _op(_CALL, imm=_GET_COMM),
        _op(_LOAD_8, _R1, _FRAME, _COMM_AT),
        *_wide(_R2, int.from_bytes(_LAUNCHER[:8], "little")),
        (_IF_NOT_EQUAL, _R1, _R2, "guest"),
        _op(_LOAD_8, _R1, _FRAME, _COMM_AT + 8),
        *_wide(_R2, int.from_bytes(_LAUNCHER[8:], "little")),
        (_IF_EQUAL, _R1, _R2, "out"),
        "guest",
        *(_op(_STORE_8_IMM, _FRAME, offset=_KEY_AT + at) for at in range(0, KEY.size, 8)),
        _op(_CALL, imm=_CGROUP_ID),
        _op(_STORE_8, _FRAME, _R0, _KEY_AT),
        _op(registers.number_load, _R1, _REGS, registers.number),
        _op(_STORE_4, _FRAME, _R1, _KEY_AT + 8),
        _op(_STORE_4_IMM, _FRAME, offset=_KEY_AT + 12, imm=place),
        _op(_STORE_4, _FRAME, _R1, _INDEX_AT),
        *_lookup(judged, _INDEX_AT),
        (_IF_EQUAL_IMM, _R0, 0, "count"),
        _op(_LOAD_4, _WANTED, _R0, 0),
    ]
    for position, offset in enumerate(registers.arguments):
        code += [
            _op(_IF_BITS_IMM, _WANTED, offset=1, imm=1 << position),
            (_JUMP, 0, 0, f"after {position}"),
            _op(_LOAD_8, _R1, _REGS, offset),
            _op(_STORE_4, _FRAME, _R1, _KEY_AT + 16 + 4 * position),
            f"after {position}",
        ]
    code += [
        "count",
        *_lookup(counts, _KEY_AT),
        (_IF_EQUAL_IMM, _R0, 0, "first"),
        _op(_MOVE_IMM, _R1, imm=1),
        _op(_ATOMIC_ADD, _R0, _R1),
        (_JUMP, 0, 0, "out"),
        "first",
        _op(_STORE_8_IMM, _FRAME, offset=_ONE_AT, imm=1),
        *_map_argument(counts),
        _op(_MOVE, _R2, _FRAME),
        _op(_ADD_IMM, _R2, imm=_KEY_AT),
        _op(_MOVE, _R3, _FRAME),
        _op(_ADD_IMM, _R3, imm=_ONE_AT),
        _op(_MOVE_IMM, _R4, imm=_NO_EXIST),
        _op(_CALL, imm=_UPDATE),
        (_IF_EQUAL_IMM, _R0, 0, "out"),
        # another processor was faster, or the map is full
        *_lookup(counts, _KEY_AT),
        (_IF_EQUAL_IMM, _R0, 0, "full"),
        _op(_MOVE_IMM, _R1, imm=1),
        _op(_ATOMIC_ADD, _R0, _R1),
        (_JUMP, 0, 0, "out"),
        "full",
        _op(_STORE_4_IMM, _FRAME, offset=_INDEX_AT),
        *_lookup(lost, _INDEX_AT),
        (_IF_EQUAL_IMM, _R0, 0, "out"),
        _op(_MOVE_IMM, _R1, imm=1),
        _op(_ATOMIC_ADD, _R0, _R1),
        "out",
        _op(_MOVE_IMM, _R0),
        _op(_EXIT),
    ]
    return _link(code)


def _op(code: int, target: int = 0, source: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, target | source << 4, offset, imm)


def _wide(target: int, value: int, source: int = 0) -> list[bytes]:
    """A 64-bit constant takes two places."""
    low, high = value & 0xFFFFFFFF, value >> 32
    return [struct.pack("<BBhI", _LOAD_IMM, target | source << 4, 0, low), struct.pack("<BBhI", 0, 0, 0, high)]


def _map_argument(fd: int) -> list[bytes]:
    return _wide(_R1, fd, _MAP)


def _lookup(fd: int, key_at: int) -> list[bytes]:
    return [
        *_map_argument(fd),
        _op(_MOVE, _R2, _FRAME),
        _op(_ADD_IMM, _R2, imm=key_at),
        _op(_CALL, imm=_LOOKUP),
    ]


def _link(code: _Code) -> bytes:
    """Jumps to names become jumps over so many instructions."""
    places, at = {}, 0
    for part in code:
        if isinstance(part, str):
            places[part] = at
        else:
            at += 1
    linked: list[bytes] = []
    for part in code:
        if isinstance(part, bytes):
            linked.append(part)
        elif isinstance(part, tuple):
            kind, target, source, name = part
            linked.append(_op(kind, target, source, places[name] - len(linked) - 1))
    return b"".join(linked)
