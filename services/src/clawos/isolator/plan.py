"""From what is asked to what is done: a list of small frozen operations, in order, before anything happens.

`planner.py` looks at the machine (which paths exist, who owns what) and decides; the launcher carries out.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

from clawos.isolator.quotas import Quota


class Mount(IntFlag):
    """How a mount may be used; reading always, set-user-id never."""

    READ = 0
    WRITE = 1
    EXEC = 2
    DEVICES = 4


class Access(IntFlag):
    """What Landlock allows below a path."""

    READ = 1
    WRITE = 2
    EXEC = 4
    IOCTL = 8
    LIST = 16
    """Directories' names only; READ has it too."""


@dataclass(frozen=True)
class Dir:
    path: str
    mode: int = 0o755


@dataclass(frozen=True)
class File:
    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Link:
    path: str
    target: str


@dataclass(frozen=True)
class Bind:
    path: str
    source: str
    flags: Mount = Mount.READ
    is_directory: bool = True


@dataclass(frozen=True)
class Tmpfs:
    path: str
    size_bytes: int
    flags: Mount = Mount.READ


@dataclass(frozen=True)
class Proc:
    path: str


@dataclass(frozen=True)
class Allow:
    path: str
    access: Access


Operation = Dir | File | Link | Bind | Tmpfs | Proc | Allow

LANG = "C.UTF-8"
"""Of every sandbox."""
OPERATIONS_MAX = 512
"""As in launch.h; a test compares the two."""


@dataclass(frozen=True)
class Proxy:
    """Where the egress service listens: the one place that a sandbox may connect to."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Plan:
    """Everything about one sandbox."""

    tool: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    run_as: str
    uid: int
    """Inside; outside too, but for a call with an id of its own there."""
    has_own_uid: bool
    """Nothing that it touches outside goes by its user: no file that stays, no one who asks who it is."""
    gid: int
    groups: Mapping[str, int]
    hostname: str
    proxy: Proxy | None
    """None: there is no network."""
    cwd: str
    stdin: bool
    wall_s: float
    quota_name: str
    quota: Quota
    seccomp_name: str
    seccomp_filter: bytes = field(repr=False)
    landlock_min_abi: int
    operations: tuple[Operation, ...]
    home: str | None
    """Where the caller's home lies outside, to be made if it is his first call."""
    zygote: bool = False
    """It may begin as a copy of a Python that waits: argv is what a new one would be started by."""
    root_bytes: int = 8 * 1024 * 1024
    """The root itself holds a few small files; what grows is mounted on it."""

    @property
    def rlimits(self) -> dict[int, int]:
        """Second fence behind the cgroup, and what a cgroup does not limit."""
        return {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NOFILE: self.quota.open_files,
            resource.RLIMIT_FSIZE: self.quota.file_bytes,
            resource.RLIMIT_MEMLOCK: 65536,
            resource.RLIMIT_MSGQUEUE: 0,
            13: 0,  # RLIMIT_NICE, which Python does not name
            14: 0,  # RLIMIT_RTPRIO
        }

    def describe(self) -> dict[str, Any]:
        """The plan for a person or an audit record."""
        return {
            "tool": self.tool,
            "argv": self.argv,
            "zygote": self.zygote,
            "cwd": self.cwd,
            "run_as": self.run_as,
            "own_uid": self.has_own_uid,
            "groups": list(self.groups),
            "namespaces": NAMESPACES,
            "network": str(self.proxy or "none"),
            "mounts": [m for o in self.operations if (m := _describe(o))],
            "limits": {
                # without those of WebAssembly, which stand in argv where they hold
                **{f: getattr(self.quota, f) for f in self.quota.__struct_fields__ if f != "wasm"},
                "wall_s": self.wall_s,
            },
            "filters": {
                "seccomp": self.seccomp_name,
                "seccomp_instructions": len(self.seccomp_filter) // 8,
                "landlock": [
                    *([o.path, _words(o.access)] for o in self.operations if isinstance(o, Allow)),
                    *([f"tcp {p.port}", "connect"] for p in (self.proxy,) if p),
                ],
                "landlock_min_abi": self.landlock_min_abi,
            },
        }


NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


def _words(flags: IntFlag) -> str:
    words = [str(f.name).lower() for f in flags]
    return " ".join(words if isinstance(flags, Access) else ["read", *words])


def _describe(operation: Operation) -> dict[str, Any] | None:
    match operation:
        case Bind(path, source, flags, _):
            return {"path": path, "source": source, "access": _words(flags)}
        case Tmpfs(path, size_bytes, flags):
            return {"path": path, "source": "tmpfs", "access": _words(flags), "size_bytes": size_bytes}
        case Proc(path):
            return {"path": path, "source": "proc", "access": "read"}
        case _:
            return None


def in_order(wanted: Mapping[str, Operation]) -> Iterator[Operation]:
    """Operations so that parents come before children, with the directories in between that nobody named.

    What lies below a bind is the bind's own, so operations there fall away.
    """
    binds = {path for path, operation in wanted.items() if isinstance(operation, Bind | Proc)}
    made = {"/"}
    for path in sorted(wanted, key=lambda p: p.split("/")):
        parts = path.split("/")
        parents = ["/".join(parts[:end]) for end in range(2, len(parts))]
        if binds.intersection(parents):
            continue
        for parent in parents:
            if parent not in made:
                made.add(parent)
                yield Dir(parent)
        operation = wanted[path]
        if isinstance(operation, Bind | Tmpfs | Proc):
            yield from _mount_point(operation)
        made.add(path)
        yield operation


def _mount_point(operation: Bind | Tmpfs | Proc) -> Iterator[Operation]:
    is_file = isinstance(operation, Bind) and not operation.is_directory
    yield File(operation.path, b"", 0o444) if is_file else Dir(operation.path)
