"""What a filter answers: an interpreter of our own for classic BPF, which shares nothing with the compiler.

The tests compare it with the kernel's, and the filters that it judges with libseccomp's (`crosscheck.py`).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from enum import IntEnum

from clawos.core.errors import ConfigInvalid


class Answer(IntEnum):
    """What our filters return; anything else is a mistake."""

    ALLOWED = 0x7FFF0000
    EPERM = 0x00050000 | errno.EPERM
    ENOSYS = 0x00050000 | errno.ENOSYS
    KILLED = 0x80000000


def evaluate(blob: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """Run a filter as the kernel does: struct seccomp_data in, return value out. Raises ConfigInvalid."""
    words = [argument & (2**64 - 1) for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<IIQ6Q", number & (2**32 - 1), architecture, 0, *words)
    accumulator, at = 0, 0
    for _ in range(len(blob) // 8):
        if (at + 1) * 8 > len(blob):
            break
        code, jump_true, jump_false, k = struct.unpack_from("<HBBI", blob, at * 8)
        at += 1
        match code:
            case 0x20:  # load a word
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x54:  # and
                accumulator &= k
            case 0x05:  # jump
                at += k
            case 0x15:  # jump if equal
                at += jump_true if accumulator == k else jump_false
            case 0x35:  # jump if not below
                at += jump_true if accumulator >= k else jump_false
            case 0x25:  # jump if above; only libseccomp writes it
                at += jump_true if accumulator > k else jump_false
            case 0x06:
                return int(k)
            case _:
                raise ConfigInvalid(f"seccomp: a filter holds the instruction {code:#x}")
    raise ConfigInvalid("seccomp: a filter does not end")
