"""System call names → numbers, from libseccomp's tables (through ctypes; only the image's build needs it)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from clawos.core.errors import ConfigInvalid
from clawos.isolator.seccomp.compiler import Architecture
from clawos.isolator.seccomp.profile import Rule

_UNKNOWN = -1
_NUMBERS = range(1024)


def resolve(name: str, architecture: Architecture) -> int | None:
    """The number, or None where this architecture has no such call. Raises ConfigInvalid if unknown."""
    library = ctypes.CDLL("libseccomp.so.2")
    number: int = library.seccomp_syscall_resolve_name_arch(architecture.token, name.encode())
    if number == _UNKNOWN:
        raise ConfigInvalid(f"seccomp: no system call is called {name!r}")
    return number if number >= 0 else None


def numbered(rules: Mapping[str, Rule], architecture: Architecture) -> dict[int, Rule]:
    """Rules by number, without those for calls that this architecture does not have."""
    found = {resolve(call, architecture): rule for call, rule in rules.items()}
    return {number: rule for number, rule in found.items() if number is not None}


def names(architecture: Architecture) -> dict[int, str]:
    """Every system call of an architecture."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p  # leaked: a few kilobytes, once
    found = {n: library.seccomp_syscall_resolve_num_arch(architecture.token, n) for n in _NUMBERS}
    return {number: name.decode() for number, name in found.items() if name}
