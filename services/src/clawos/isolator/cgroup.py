"""The delegated cgroup v2 subtree: one leaf a call, made and removed here, nowhere else.

systemd delegates the unit's cgroup and keeps our own process in `supervisor` below it (DelegateSubgroup=), so
that the controllers can be handed on: a cgroup that hands them on may hold no process itself.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from clawos.isolator.errors import SandboxRefused
from clawos.isolator.quotas import Quota

log = logging.getLogger(__name__)

SUPERVISOR = "supervisor"
_NEEDED = frozenset({"cpu", "memory", "pids"})
_PERIOD_US = 100_000
# Twice what our own process uses: sandboxes that fill the unit's MemoryMax= do not push it out of memory.
_SUPERVISOR_MIN_BYTES = 64 * 1024 * 1024
_REMOVE_TIMEOUT_S = 30
# Something in it is still dying; or we lack what it takes to look, which the ends of other calls give back.
_PASSING = frozenset({errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True)
class Spent:
    out_of_memory: bool
    out_of_pids: bool
    cpu_s: float
    peak_memory_bytes: int
    peak_pids: int


class Leaf:
    """The cgroup of one call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.id = os.fstat(self.fd).st_ino  # what bpf_get_current_cgroup_id(7) calls it

    def kill(self) -> None:
        """SIGKILL to everything inside, atomically: nothing forks its way out."""
        (self.path / "cgroup.kill").write_text("1")

    def spent(self) -> Spent:
        memory = _numbers(self.path / "memory.events")
        return Spent(
            out_of_memory=memory.get("oom_kill", 0) > 0,
            out_of_pids=_numbers(self.path / "pids.events").get("max", 0) > 0,
            cpu_s=_numbers(self.path / "cpu.stat").get("usage_usec", 0) / 1e6,
            peak_memory_bytes=_peak(self.path / "memory.peak"),
            peak_pids=_peak(self.path / "pids.peak"),
        )

    async def remove(self) -> None:
        """Kill what is left and remove the leaf; the kernel needs a moment between the two."""
        os.close(self.fd)
        await _kill_and_remove(self.path)


class Cgroups:
    """The subtree that systemd handed to us."""

    def __init__(self, base: Path, disk: str | None = None) -> None:
        """`disk`: the block device, as "MAJOR:MINOR", whose use is limited; None: there is none."""
        self.base = base
        self.disk = disk

    @classmethod
    async def claim(
        cls,
        disk: str | None = None,
        own: Path = Path("/proc/self/cgroup"),
        mount: Path = Path("/sys/fs/cgroup"),
    ) -> Cgroups:
        """Take over the subtree: kill leftovers of an earlier run, hand the controllers on.

        Raises SandboxRefused: without limits there are no sandboxes.
        """
        cgroups = cls(_delegated(own, mount), disk)
        try:
            await cgroups._remove_leftovers()
            cgroups._hand_on_controllers()
            cgroups._protect_supervisor()
        except OSError as error:
            raise SandboxRefused("cgroup", error.errno or errno.EIO) from None
        return cgroups

    async def create(self, call_id: str, quota: Quota) -> Leaf:
        """A leaf with all limits set. Raises SandboxRefused."""
        path = self.base / f"call-{call_id}"
        try:
            path.mkdir()
        except OSError as error:
            raise SandboxRefused("cgroup", error.errno or errno.EIO) from None
        try:
            for file, value in (_limits(quota) | self._disk_limits(quota)).items():
                (path / file).write_text(value)
            return Leaf(path)
        except OSError as error:
            path.rmdir()
            raise SandboxRefused("cgroup", error.errno or errno.EIO) from None

    async def _remove_leftovers(self) -> None:
        for path in self.base.iterdir():
            if path.is_dir() and path.name != SUPERVISOR:
                await _kill_and_remove(path)

    def _hand_on_controllers(self) -> None:
        needed = _NEEDED | ({"io"} if self.disk else set())
        missing = needed - set((self.base / "cgroup.controllers").read_text().split())
        if missing:
            raise SandboxRefused("cgroup", f"the controllers {', '.join(sorted(missing))} are not delegated")
        (self.base / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in sorted(needed)))

    def _disk_limits(self, quota: Quota) -> dict[str, str]:
        if self.disk is None:
            return {}
        return {"io.max": f"{self.disk} rbps={quota.disk_bytes_s} wbps={quota.disk_bytes_s}"}

    def _protect_supervisor(self) -> None:
        """The kernel makes this file ours with the controller; where systemd made it, it may not be."""
        try:
            (self.base / SUPERVISOR / "memory.min").write_text(str(_SUPERVISOR_MIN_BYTES))
        except PermissionError:
            log.info("memory.min of the supervisor is not ours to set")


def disk_of(path: Path, devices: Path = Path("/sys/dev/block")) -> str | None:
    """The block device that a path lies on, as io.max takes it: a whole one, not its partition."""
    while not path.exists():
        path = path.parent
    device = path.stat().st_dev
    found = devices / f"{os.major(device)}:{os.minor(device)}"
    if not found.exists():  # a memory file system
        return None
    whole = found.resolve()
    if (whole / "partition").exists():
        whole = whole.parent
    return (whole / "dev").read_text().strip()


def _limits(quota: Quota) -> dict[str, str]:
    limits = {
        "memory.max": str(quota.memory_bytes),
        "memory.oom.group": "1",
        "pids.max": str(quota.pids),
        "cpu.max": f"{quota.cpu_percent * _PERIOD_US // 100} {_PERIOD_US}",
    }
    if Path("/proc/swaps").exists():  # a kernel without swap has no such limit either
        limits["memory.swap.max"] = "0"
    return limits


def _peak(file: Path) -> int:
    return int(file.read_text()) if file.exists() else 0  # not every kernel counts both


def _numbers(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def _delegated(own: Path, mount: Path) -> Path:
    match = re.search(r"^0::(/.*)$", own.read_text(), re.MULTILINE)
    if not match or not match[1].endswith("/" + SUPERVISOR):
        raise SandboxRefused("cgroup", f"the isolator is not in a delegated cgroup's {SUPERVISOR!r}")
    return mount / match[1].removeprefix("/").removesuffix("/" + SUPERVISOR)


async def _kill_and_remove(path: Path) -> None:
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    pause_s = 0.001
    while True:
        try:
            _try_to_remove(path)
            return
        except OSError as error:
            if error.errno not in _PASSING or time.monotonic() > deadline:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.1)


def _try_to_remove(path: Path) -> None:
    """Raises OSError, one of `_PASSING` where it may be tried again."""
    try:
        (path / "cgroup.kill").write_text("1")
        for below in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
            below.rmdir()
        path.rmdir()
    except FileNotFoundError:
        return
