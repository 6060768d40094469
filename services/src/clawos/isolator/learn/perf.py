"""perf_event_open(2), as far as the learning mode needs it: tracepoints of one cgroup, and their ring.

No eBPF, which the monitor's guard leaves to PID 1. Events change nothing and end with their descriptors.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from clawos.core.errors import ClawError

# struct perf_event_attr up to clockid: PERF_ATTR_SIZE_VER3
_ATTRIBUTES = struct.Struct("<IIQQQQQIIQQQQIi")
_TRACEPOINT = 2  # PERF_TYPE_TRACEPOINT
_TID, _TIME, _RAW, _REGS_USER, _CGROUP = 1 << 1, 1 << 2, 1 << 10, 1 << 12, 1 << 21  # PERF_SAMPLE_*
_DISABLED, _TASK, _WATERMARK, _USE_CLOCKID = 1 << 0, 1 << 13, 1 << 14, 1 << 25
_FORMAT_LOST = 1 << 4
_CLOCK_MONOTONIC = 1
_PID_CGROUP, _CLOEXEC = 1 << 2, 1 << 3
_ENABLE, _DISABLE, _SET_OUTPUT = 0x2400, 0x2401, 0x2405  # PERF_EVENT_IOC_*
_COUNT = struct.Struct("<QQ")
# Of struct perf_event_mmap_page, in words of 8 bytes.
_HEAD, _TAIL = 1024 // 8, 1032 // 8


class Unwatchable(ClawError):
    """This kernel, or this caller, cannot watch system calls."""

    name = "Unwatchable"


@dataclass(frozen=True)
class Machine:
    number: int
    """of perf_event_open(2)"""
    registers: tuple[int | None, ...]
    """of asm/perf_regs.h, in which each argument is when a call ends"""

    @property
    def mask(self) -> int:
        return sum(1 << register for register in self.registers if register is not None)


MACHINES = {
    "x86_64": Machine(298, (5, 4, 3, 18, 16, 17)),
    # The first argument has made way for the result; the kernel keeps it where no event looks.
    "aarch64": Machine(241, (None, 1, 2, 3, 4, 5)),
}


def machine() -> Machine:
    """Raises Unwatchable."""
    found = MACHINES.get(platform.machine())
    if found is None:
        raise Unwatchable(f"the registers of {platform.machine()} are not known here")
    return found


@dataclass(frozen=True)
class Tracepoints:
    """Numbers that the kernel gave them at boot."""

    enter: int
    exit: int

    @classmethod
    def find(cls, mounts: Path = Path("/proc/self/mounts")) -> Tracepoints:
        """Raises Unwatchable."""
        lines = (line.split() for line in mounts.read_text().splitlines())
        root = next((Path(words[1]) for words in lines if words[2] == "tracefs"), None)
        hint = "lockdown=confidentiality closes it; boot with lockdown=integrity to learn"
        if root is None:
            raise Unwatchable("no tracefs is mounted", hint)
        events = root / "events" / "raw_syscalls"
        try:
            enter, leave = (int((events / name / "id").read_text()) for name in ("sys_enter", "sys_exit"))
        except OSError as error:
            # Lockdown leaves no file there, or says EPERM, to root too.
            hint = "run it as root" if error.errno == errno.EACCES else hint
            raise Unwatchable(f"{error.filename}: {error.strerror}", hint) from None
        return cls(enter, leave)


class Event:
    """A tracepoint on one processor, of what runs in a cgroup or below it. Until enable() it sees nothing."""

    def __init__(
        self,
        cgroup: int,
        cpu: int,
        tracepoint: int,
        wake_bytes: int,
        *,
        forks: bool = False,
        registers: int = 0,
    ) -> None:
        """`forks`: tell them too. `registers`: a mask of the caller's, to be told. Raises Unwatchable."""
        sample = _TID | _TIME | _RAW | _CGROUP | (_REGS_USER if registers else 0)
        # By a clock that is the same on all processors.
        flags = _DISABLED | _WATERMARK | _USE_CLOCKID | (_TASK if forks else 0)
        attributes = _ATTRIBUTES.pack(
            *(_TRACEPOINT, _ATTRIBUTES.size, tracepoint, 1, sample, _FORMAT_LOST, flags, wake_bytes),
            *(0, 0, 0, 0, registers, 0, _CLOCK_MONOTONIC),
        )
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.syscall(machine().number, attributes, cgroup, cpu, -1, _PID_CGROUP | _CLOEXEC)
        if self.fd < 0:
            raise _unwatchable(ctypes.get_errno())

    def close(self) -> None:
        os.close(self.fd)

    def into(self, other: Event) -> None:
        """Write to the other's ring. Raises Unwatchable."""
        self._control(_SET_OUTPUT, other.fd)

    def enable(self) -> None:
        """Raises Unwatchable."""
        self._control(_ENABLE)

    def disable(self) -> None:
        """Nothing is being written any more on return."""
        self._control(_DISABLE)

    def lost(self) -> int:
        """Records that found no room. The ring itself tells of them in front of the next one, if any."""
        _, lost = _COUNT.unpack(os.read(self.fd, _COUNT.size))
        return int(lost)

    def _control(self, request: int, argument: int = 0) -> None:
        try:
            fcntl.ioctl(self.fd, request, argument)
        except OSError as error:
            raise _unwatchable(error.errno or errno.EIO) from None


class Ring:
    """The pages behind an event: one with the positions, then the data."""

    def __init__(self, fd: int, size: int) -> None:
        """`size` in bytes: a power of two, of pages. Raises Unwatchable."""
        self._size = size
        try:
            self._pages = mmap.mmap(fd, mmap.PAGESIZE + size)
        except OSError as error:
            raise _unwatchable(error.errno or errno.EIO) from None
        # By a view of whole numbers, which are loaded and stored in one piece; struct would go byte by byte.
        self._positions = memoryview(self._pages)[: mmap.PAGESIZE].cast("Q")
        self._barrier = threading.Lock()

    def close(self) -> None:
        self._positions.release()
        self._pages.close()

    def read(self) -> bytes:
        """All whole records in it, copied; their place is free again."""
        head, tail = self._positions[_HEAD], self._positions[_TAIL]
        self._order()
        start, length = tail % self._size, head - tail
        first = min(length, self._size - start)
        at = mmap.PAGESIZE + start
        data = self._pages[at : at + first] + self._pages[mmap.PAGESIZE : mmap.PAGESIZE + length - first]
        self._order()
        self._positions[_TAIL] = head
        return data

    def _order(self) -> None:
        """What is loaded and stored before this is so before what comes after, on any processor."""
        with self._barrier:
            pass


def _unwatchable(number: int) -> Unwatchable:
    hint = "this needs a kernel with perf events of cgroups"
    if number in (errno.EPERM, errno.EACCES):
        hint = "run it as root"
    elif number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        hint = "the machine, or this process, has reached a limit"
    return Unwatchable(f"the kernel refuses to watch: {os.strerror(number)}", hint)
