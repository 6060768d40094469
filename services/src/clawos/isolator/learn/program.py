"""The program that counts, in eBPF: one key for each call, end of it and judged arguments.

It runs at both ends of every system call of the machine and leaves at once where the caller is in no sandbox.
The tracepoint at a call's beginning lies behind seccomp, the one at its end does not: a call that ends and
never began is one that the filter refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from clawos.isolator.learn.instructions import (
    Helper,
    Instruction,
    Op,
    Part,
    Place,
    Register,
    Wide,
    call,
    link,
)

R0, R1, R2, R3, R4 = Register.R0, Register.R1, Register.R2, Register.R3, Register.R4
_SAVED, _RETURNED, _ASKED, _FRAME = Register.R6, Register.R7, Register.R8, Register.FRAME

BEGAN, ENDED = 0, 1
NUMBERS = 1024
KEY = struct.Struct("<QII6I")
"""cgroup id, number, BEGAN or ENDED, low halves of the arguments that the profile judges"""

_KEY_AT, _ONE_AT, _INDEX_AT = -40, -48, -56
_NO_EXIST = 1


@dataclass(frozen=True)
class Machine:
    """Where struct pt_regs keeps the number and the arguments of a call, and what seccomp(2)'s number is."""

    number: int
    number_load: Op
    arguments: tuple[int, int, int, int, int, int]
    seccomp: int


MACHINES = {
    "x86_64": Machine(120, Op.LOAD_8, (112, 104, 96, 56, 72, 64), 317),
    "aarch64": Machine(280, Op.LOAD_4, (272, 8, 16, 24, 32, 40), 277),
}


@dataclass(frozen=True)
class Maps:
    """Descriptors of maps."""

    judged: int
    """number → a bit for each argument to tell apart"""
    counts: int
    lost: int
    """one number: calls that found no room in `counts`"""


@dataclass(frozen=True)
class Guests:
    """Who is watched: below a cgroup, and under more filters than the service itself.

    A launcher's own work has not loaded the profile yet, so it does not count.
    """

    cgroup_id: int
    level: int
    """of the cgroup, counted from the root of the hierarchy"""
    filters_offset: int
    """of task_struct.seccomp.filter_count"""
    filters_inherited: int


def assemble(end: int, guests: Guests, maps: Maps, machine: Machine) -> bytes:
    """The program for one of the two tracepoints."""
    return link(_parts(end, guests, maps, machine))


def _parts(end: int, guests: Guests, maps: Maps, machine: Machine) -> Iterator[Part]:
    yield Instruction(Op.LOAD_8, _SAVED, R1, 0)
    yield Instruction(Op.LOAD_8, _RETURNED, R1, 8)
    yield Instruction(Op.MOVE_VALUE, R1, value=guests.level)
    yield call(Helper.ANCESTOR_CGROUP_ID)
    yield Wide(R2, guests.cgroup_id)
    yield Instruction(Op.IF_NOT_EQUAL, R0, R2, to="out")
    yield call(Helper.CURRENT_TASK)
    yield Instruction(Op.LOAD_4, R1, R0, guests.filters_offset)
    yield Instruction(Op.IF_NO_MORE_VALUE, R1, value=guests.filters_inherited, to="out")

    for at in range(0, KEY.size, 8):
        yield Instruction(Op.STORE_8_VALUE, _FRAME, offset=_KEY_AT + at)
    yield call(Helper.CGROUP_ID)
    yield Instruction(Op.STORE_8, _FRAME, R0, _KEY_AT)
    yield Instruction(machine.number_load, R1, _SAVED, machine.number)
    yield Instruction(Op.IF_EQUAL_VALUE, R1, value=-1, to="out")  # the end of rt_sigreturn(2) has no number
    if end == ENDED:  # the call that loaded the profile began without it
        yield Instruction(Op.IF_NOT_EQUAL_VALUE, R1, value=machine.seccomp, to="guest's")
        yield Instruction(Op.IF_EQUAL_VALUE, _RETURNED, to="out")
        yield Place("guest's")
    yield Instruction(Op.STORE_4, _FRAME, R1, _KEY_AT + 8)
    yield Instruction(Op.STORE_4_VALUE, _FRAME, offset=_KEY_AT + 12, value=end)
    yield Instruction(Op.STORE_4, _FRAME, R1, _INDEX_AT)

    yield from _lookup(maps.judged, _INDEX_AT)
    yield Instruction(Op.IF_EQUAL_VALUE, R0, to="count")
    yield Instruction(Op.LOAD_4, _ASKED, R0)
    for position, offset in enumerate(machine.arguments):
        yield Instruction(Op.IF_BITS_VALUE, _ASKED, value=1 << position, to=f"take {position}")
        yield Instruction(Op.JUMP, to=f"after {position}")
        yield Place(f"take {position}")
        yield Instruction(Op.LOAD_8, R1, _SAVED, offset)
        yield Instruction(Op.STORE_4, _FRAME, R1, _KEY_AT + 16 + 4 * position)
        yield Place(f"after {position}")

    yield Place("count")
    yield from _lookup(maps.counts, _KEY_AT)
    yield from _add_one(otherwise="first")
    yield Place("first")
    yield Instruction(Op.STORE_8_VALUE, _FRAME, offset=_ONE_AT, value=1)
    yield Wide(R1, maps.counts, is_map=True)
    yield from _address(R2, _KEY_AT)
    yield from _address(R3, _ONE_AT)
    yield Instruction(Op.MOVE_VALUE, R4, value=_NO_EXIST)
    yield call(Helper.UPDATE)
    yield Instruction(Op.IF_EQUAL_VALUE, R0, to="out")
    # Another processor was faster, or the map is full.
    yield from _lookup(maps.counts, _KEY_AT)
    yield from _add_one(otherwise="full")
    yield Place("full")
    yield Instruction(Op.STORE_4_VALUE, _FRAME, offset=_INDEX_AT)
    yield from _lookup(maps.lost, _INDEX_AT)
    yield from _add_one(otherwise="out")
    yield Place("out")
    yield Instruction(Op.MOVE_VALUE, R0)
    yield Instruction(Op.EXIT)


def _address(register: Register, at: int) -> tuple[Part, ...]:
    return Instruction(Op.MOVE, register, _FRAME), Instruction(Op.ADD_VALUE, register, value=at)


def _lookup(fd: int, key_at: int) -> Iterator[Part]:
    yield Wide(R1, fd, is_map=True)
    yield from _address(R2, key_at)
    yield call(Helper.LOOKUP)


def _add_one(otherwise: str) -> Iterator[Part]:
    """To what a lookup found."""
    yield Instruction(Op.IF_EQUAL_VALUE, R0, to=otherwise)
    yield Instruction(Op.MOVE_VALUE, R1, value=1)
    yield Instruction(Op.ATOMIC_ADD_8, R0, R1)
    yield Instruction(Op.JUMP, to="out")
