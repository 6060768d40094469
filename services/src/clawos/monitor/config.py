"""Settings of the monitor: /etc/clawos/monitor.toml over these defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from clawos.core.names import POLICY_DIR, Room
from clawos.core.parse import Record
from clawos.monitor.kinds import Kind

ROOM = Room("monitor")


CGROUP_BYTES = 127
FOLLOWED_MAX = 64


class Followed(Record, frozen=True):
    """A cgroup of which more is recorded, and of all below it."""

    cgroup: str
    """From the root of the tree, such as /system.slice/sshd.service."""
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.cgroup.startswith("/") or len(self.cgroup.encode()) >= CGROUP_BYTES:
            raise ValueError(f"cgroup: {self.cgroup} is no path of less than {CGROUP_BYTES} bytes")
        for kind in self.kinds:
            if kind not in {kind.word for kind in Kind}:
                raise ValueError(f"kinds: {kind} is none")


class Config(Record, frozen=True):
    pins: Path = Path("/run/clawos-bpf")
    """Maps of the kernel side; below /sys/fs/bpf/clawos outside this unit."""
    follow: Annotated[tuple[Followed, ...], msgspec.Meta(max_length=FOLLOWED_MAX)] = ()
    """Beside sandboxes, of which everything is recorded."""
    rules: tuple[Path, ...] = (POLICY_DIR / "detect", Path("/etc/clawos/detect.d"))
    """Directories of rules; a file in a later one wins over one of the same name."""
    processes_max: Annotated[int, msgspec.Meta(ge=1024, le=131072)] = 12288
    """In the process tree. One takes about 500 bytes."""
    subscribers_max: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    batch: Annotated[int, msgspec.Meta(ge=64, le=8192)] = 1024
    """Events that are taken before anything else has its turn: a few milliseconds."""
    idle_s: Annotated[float, msgspec.Meta(ge=0.001, le=1)] = 0.02
    """How long events wait for others before we look, when none came at the last look."""
