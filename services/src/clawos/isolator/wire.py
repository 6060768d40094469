"""The plan in the launcher's words: the binary format that `launcher/plan.c` reads, and the lines it reports.

All little-endian. Header, then records of one shape; strings carry their NUL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce
from operator import or_

from clawos.isolator.plan import Access, Allow, Bind, Dir, File, Link, Plan, Proc, Tmpfs

MAGIC = b"CLAWPLN1"
_HEADER = struct.Struct("<8sIIIIIIQ")
_RECORD = struct.Struct("<IIQII")


# LANDLOCK_ACCESS_FS_*, up to ABI 5; the launcher takes away what a file or an older kernel has not.
_LANDLOCK = {
    Access.EXEC: 0x1,
    Access.READ: 0x4 | 0x8,  # files and directories
    Access.LIST: 0x8,
    # Write and truncate; remove and make directories, files, sockets, FIFOs and links, and move them about.
    Access.WRITE: 0x2 | 0x10 | 0x20 | 0x80 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000,
    Access.IOCTL: 0x8000,
}


class Kind(IntEnum):
    ARG = 1
    ENV = 2
    GROUP = 3
    RLIMIT = 4
    SECCOMP = 5
    HOSTNAME = 6
    CWD = 7
    DIR = 8
    FILE = 9
    LINK = 10
    BIND = 11
    TMPFS = 12
    PROC = 13
    ALLOW = 14
    CONNECT = 15


def _record(kind: Kind, a: bytes = b"", b: bytes = b"", *, flags: int = 0, number: int = 0) -> bytes:
    return _RECORD.pack(kind, flags, number, len(a), len(b)) + a + b


def landlock(access: Access) -> int:
    """Its bits LANDLOCK_ACCESS_FS_*."""
    return reduce(or_, (_LANDLOCK[each] for each in access), 0)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _records(plan: Plan) -> Iterator[bytes]:
    for argument in plan.argv:
        yield _record(Kind.ARG, _text(argument))
    for name, value in plan.env.items():
        yield _record(Kind.ENV, _text(f"{name}={value}"))
    for gid in plan.groups.values():
        yield _record(Kind.GROUP, number=gid)
    for resource, limit in plan.rlimits.items():
        yield _record(Kind.RLIMIT, flags=resource, number=limit)
    yield _record(Kind.SECCOMP, plan.seccomp_filter)
    yield _record(Kind.HOSTNAME, _text(plan.hostname))
    yield _record(Kind.CWD, _text(plan.cwd))
    if plan.proxy:
        yield _record(Kind.CONNECT, number=plan.proxy.port)


def _operations(plan: Plan) -> Iterator[bytes]:
    for operation in plan.operations:
        match operation:
            case Dir(path, mode):
                yield _record(Kind.DIR, _text(path), flags=mode)
            case File(path, content, mode):
                yield _record(Kind.FILE, _text(path), content, flags=mode)
            case Link(path, target):
                yield _record(Kind.LINK, _text(path), _text(target))
            case Bind(path, source, flags, _):
                yield _record(Kind.BIND, _text(path), _text(source), flags=flags)
            case Tmpfs(path, size_bytes, flags):
                yield _record(Kind.TMPFS, _text(path), flags=flags, number=size_bytes)
            case Proc(path):
                yield _record(Kind.PROC, _text(path))
            case Allow(path, access):
                yield _record(Kind.ALLOW, _text(path), flags=landlock(access))


def encode(plan: Plan, host_uid: int | None = None) -> bytes:
    """The whole plan as the launcher reads it. `host_uid`: what its user is outside; None for the same."""
    body = b"".join((*_records(plan), *_operations(plan)))
    wall_ms = max(1, int(plan.wall_s * 1000))
    size = _HEADER.size + len(body)
    return (
        _HEADER.pack(
            MAGIC,
            size,
            plan.uid,
            plan.gid,
            wall_ms,
            plan.landlock_min_abi,
            host_uid or plan.uid,
            plan.root_bytes,
        )
        + body
    )


def encode_root(plan: Plan) -> bytes:
    """What one root differs from another by."""
    return b"".join((plan.root_bytes.to_bytes(8), *_operations(plan)))


@dataclass(frozen=True)
class Refused:
    step: str
    error: int


@dataclass(frozen=True)
class Started:
    landlock_abi: int


@dataclass(frozen=True)
class Exited:
    wait_status: int


@dataclass(frozen=True)
class Usage:
    cause: str
    cpu_s: float
    peak_bytes: int


Report = Refused | Started | Exited | Usage


def decode_report(line: str) -> Report:
    """One line that the launcher reports. Raises ValueError."""
    match line.split():
        case ["refused", step, error]:
            return Refused(step, int(error))
        case ["started", abi]:
            return Started(int(abi))
        case ["exited", status]:
            return Exited(int(status))
        case ["usage", cause, cpu_us, peak_kb]:
            return Usage(cause, int(cpu_us) / 1e6, int(peak_kb) * 1024)
    raise ValueError(f"the launcher reported {line!r}")
