"""The XDP program that another room pins: bpf(2), as far as opening it goes."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clawos.network.errors import ProgramRefused

_NUMBER = {"x86_64": 321, "aarch64": 280}
_OBJ_GET = 7
_READ_ONLY = 1 << 3  # BPF_F_RDONLY: the unit sees the BPF file system read-only


class PinnedProgram:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """A descriptor of the program; None where none is pinned. Raises ProgramRefused."""
        try:
            fd: int | None = self._open()
        except FileNotFoundError:
            fd = None
        except OSError as error:
            raise ProgramRefused(str(self._path), error) from None
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def _open(self) -> int:
        name = ctypes.create_string_buffer(os.fsencode(self._path))
        attributes = struct.pack("<QII", ctypes.addressof(name), 0, _READ_ONLY)
        fd: int = self._libc.syscall(_NUMBER[platform.machine()], _OBJ_GET, attributes, len(attributes))
        if fd < 0:
            number = ctypes.get_errno() or errno.EIO
            raise OSError(number, os.strerror(number))
        return fd
