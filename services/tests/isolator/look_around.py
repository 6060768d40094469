"""Run inside a sandbox: prints what a program there can see of it, as one JSON object."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

SELF = Path("/proc/self")
PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_GET_SECUREBITS = 2, 3, 27
# Numbers of the moment, and what the kernel counts.
VARIES = (
    "Pid",
    "Tgid",
    "Ngid",
    "PPid",
    "NS",
    "Vm",
    "Rss",
    "Huge",
    "voluntary",
    "nonvoluntary",
    "Cpus",
    "Sig",
)


def status() -> dict[str, list[str]]:
    lines = dict(line.split(":", 1) for line in (SELF / "status").read_text().splitlines())
    return {name: value.split() for name, value in lines.items() if not name.startswith(VARIES)}


def mounts() -> dict[str, list[str]]:
    """Path → type and options; of two on one path, the one that is seen."""
    found = {}
    for line in (SELF / "mounts").read_text().splitlines():
        _, path, kind, options, *_ = line.split()
        found[path] = [kind, *sorted(o for o in options.split(",") if not o.startswith(("uid=", "gid=")))]
    return found


NOBODY = 65534


def owner(uid: int) -> str:
    """The root itself belongs to whoever made it: the sandbox's user, or one who is nobody in it."""
    return "the root's" if uid in (NOBODY, os.getuid()) else str(uid)


def tree() -> dict[str, list[str]]:
    """What the sandbox's own root holds, and the first level of what is mounted on it."""
    device = Path("/").stat().st_dev
    found: dict[str, list[str]] = {}
    for directory, names, files in Path("/").walk():
        for path in (directory / name for name in (*names, *files)):
            seen = path.lstat()
            if path.is_symlink():
                found[str(path)] = ["link to", str(path.readlink())]
                continue
            own = seen.st_dev == device
            owners = [owner(i) if own else str(i) for i in (seen.st_uid, seen.st_gid)]
            found[str(path)] = [oct(seen.st_mode), *owners]
            if own and path.is_file():
                found[str(path)] += [path.read_text()]
        names[:] = [name for name in names if (directory / name).lstat().st_dev == device]
    return found


def attempt(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return str(error.strerror)
    return "done"


def limits() -> dict[str, tuple[int, int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def asked(option: int) -> int:
    answer = ctypes.c_int(-1)
    by_pointer = option == PR_GET_PDEATHSIG
    value: int = ctypes.CDLL(None).prctl(option, ctypes.byref(answer) if by_pointer else 0, 0, 0, 0)
    return answer.value if by_pointer else value


def space(path: str) -> list[int]:
    found = os.statvfs(path)
    return [found.f_blocks * found.f_frsize, found.f_files, found.f_flag]


print(
    json.dumps(
        {
            "status": status(),
            "mounts": mounts(),
            "tree": tree(),
            "id maps": {
                name: (SELF / name).read_text().split() for name in ("uid_map", "gid_map", "setgroups")
            },
            "limits": limits(),
            "environment": dict(os.environ),
            "directory": str(Path.cwd()),
            "securebits": asked(PR_GET_SECUREBITS),
            "dumpable": asked(PR_GET_DUMPABLE),
            "death signal": asked(PR_GET_PDEATHSIG),
            "leads a session": int((SELF / "stat").read_text().rpartition(")")[2].split()[3]) == os.getpid(),
            "mask": os.umask(0),
            "host name": os.uname().nodename,
            "oom": (SELF / "oom_score_adj").read_text(),
            "network": {name: Path("/proc/net", name).read_text() for name in ("dev", "route", "if_inet6")},
            "streams": [stat.S_IFMT(os.fstat(fd).st_mode) for fd in range(3)],
            "descriptors": sorted(path.name for path in (SELF / "fd").iterdir()),
            "init": {
                "descriptors": attempt(lambda: [*Path("/proc/1/fd").iterdir()]),
                "root": attempt(Path("/proc/1/root").readlink),
                "kill": attempt(lambda: os.kill(1, 9)),
            },
            "space": {path: space(path) for path in ("/tmp", "/dev/shm")},
        }
    )
)
