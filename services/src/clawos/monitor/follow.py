"""Which cgroups are followed beside sandboxes: as the settings say, told to the kernel side."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from clawos.monitor.config import CGROUP_BYTES, Followed
from clawos.monitor.kinds import Kind
from clawos.monitor.libbpf import Map

_TREE = Path("/sys/fs/cgroup")
_FOLLOW = struct.Struct("=QQII")
"""struct follow: the mask of kinds; no call, no set-up."""
_KEY_BYTES = CGROUP_BYTES + 1


def follow(followed: Iterable[Followed], named: Map, storage: Map) -> None:
    """Those that there are, with all below them, and those made later. Raises BpfRefused, OSError."""
    named.clear(_KEY_BYTES)
    for entry in followed:
        mask = sum(1 << Kind[kind.upper()] for kind in entry.kinds)
        value = _FOLLOW.pack(mask, 0, 0, 0)
        named.update(entry.cgroup.encode().ljust(_KEY_BYTES, b"\0"), value)
        top = _TREE / entry.cgroup.removeprefix("/")
        if top.is_dir():
            for path in (top, *(below for below in top.rglob("*") if below.is_dir())):
                _follow_now(path, storage, value)


def _follow_now(path: Path, storage: Map, value: bytes) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # its unit has just ended
        return
    try:
        storage.update(struct.pack("=I", fd), value)
    finally:
        os.close(fd)
