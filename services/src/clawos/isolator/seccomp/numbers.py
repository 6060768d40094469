"""System call names → numbers, from libseccomp's tables (through ctypes; only the image's build needs it)."""

from __future__ import annotations

import ctypes

from clawos.core.errors import ConfigInvalid
from clawos.isolator.seccomp.compiler import Architecture

_UNKNOWN = -1


def resolve(name: str, architecture: Architecture) -> int | None:
    """The number, or None where this architecture has no such call. Raises ConfigInvalid if unknown."""
    library = ctypes.CDLL("libseccomp.so.2")
    number: int = library.seccomp_syscall_resolve_name_arch(architecture.token, name.encode())
    if number == _UNKNOWN:
        raise ConfigInvalid(f"seccomp: no system call is called {name!r}")
    return number if number >= 0 else None
