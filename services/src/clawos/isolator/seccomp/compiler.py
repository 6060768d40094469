"""Rules → classic BPF: one balanced search over the system call's number, arguments compared at its leaves.

Written out here and not left to libseccomp: its 2.6.0 merges comparisons wrongly (GHSA-4q85-33p6-j5g6). Only
low 32 bits are compared: every argument that we look at is an int or 32 bits of flags to the kernel.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from clawos.isolator.seccomp.profile import ALLOW, DENY, Comparison, Rule

# linux/bpf_common.h and linux/seccomp.h
LD_W_ABS = 0x20
AND_K = 0x54
JA = 0x05
JEQ_K = 0x15
JGE_K = 0x35
RET_K = 0x06
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
RET_KILL_PROCESS = 0x80000000
OFFSET_NUMBER = 0
OFFSET_ARCH = 4
OFFSET_ARGS = 16
X32_BIT = 0x40000000

_UNKNOWN = RET_ERRNO | errno.ENOSYS
_DENIED = RET_ERRNO | errno.EPERM

Instruction = tuple[int, int, int, int]
"""code, jump if true, jump if false, k"""


@dataclass(frozen=True)
class Architecture:
    name: str
    token: int
    has_x32: bool


ARCHITECTURES = {
    "x86_64": Architecture("x86_64", 0xC000003E, has_x32=True),
    "aarch64": Architecture("aarch64", 0xC00000B7, has_x32=False),
}


def compile_rules(rules: Mapping[int, Rule], architecture: Architecture) -> list[Instruction]:
    """A filter program over system call numbers."""
    program: list[Instruction] = [
        (LD_W_ABS, 0, 0, OFFSET_ARCH),
        (JEQ_K, 1, 0, architecture.token),
        (RET_K, 0, 0, RET_KILL_PROCESS),
        (LD_W_ABS, 0, 0, OFFSET_NUMBER),
    ]
    if architecture.has_x32:
        program += [(JGE_K, 0, 1, X32_BIT), (RET_K, 0, 0, RET_KILL_PROCESS)]
    return program + _search(_ranges(rules))


def encode(program: list[Instruction]) -> bytes:
    """As an array of struct sock_filter."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _ranges(rules: Mapping[int, Rule]) -> list[tuple[int, Rule | None]]:
    """(first number, rule) in order, neighbours of one rule joined; None is what nobody named."""
    ranges: list[tuple[int, Rule | None]] = []
    for number in range(max(rules) + 2):
        rule = rules.get(number)
        if not ranges or ranges[-1][1] != rule or rule not in (ALLOW, DENY, None):
            ranges.append((number, rule))
    return ranges


def _search(ranges: list[tuple[int, Rule | None]]) -> list[Instruction]:
    if len(ranges) == 1:
        return _leaf(ranges[0][1])
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    pivot = ranges[middle][0]
    if len(low) <= 255:
        return [(JGE_K, len(low), 0, pivot), *low, *high]
    return [(JGE_K, 0, 1, pivot), (JA, 0, 0, len(low)), *low, *high]


def _leaf(rule: Rule | None) -> list[Instruction]:
    if rule is None:
        return [(RET_K, 0, 0, _UNKNOWN)]
    if rule == ALLOW:
        return [(RET_K, 0, 0, RET_ALLOW)]
    code: list[Instruction] = []
    for tests in rule.alternatives:
        code += _alternative(tests)
    return [*code, (RET_K, 0, 0, _DENIED)]


def _alternative(tests: tuple[Comparison, ...]) -> list[Instruction]:
    """Allow if all tests hold, else fall through behind this block."""
    code: list[Instruction] = [(RET_K, 0, 0, RET_ALLOW)]
    for test in reversed(tests):
        load: list[Instruction] = [(LD_W_ABS, 0, 0, OFFSET_ARGS + 8 * test.arg)]
        if test.mask != 0xFFFFFFFF:
            load.append((AND_K, 0, 0, test.mask))
        code = [*load, (JEQ_K, 0, len(code), test.value), *code]
    return code
