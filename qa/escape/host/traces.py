"""Runs as root on the host: what sandboxes leave, or would leave, behind. Prints {kind: [what]} as JSON.

Taken before and after, and compared: what the machine itself has is in both.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

UNIT = "clawos-isolator.service"
OURS = re.compile(r"clawos-sandbox|clawos-units|clawos-power|clawos-settings")
DIRECTORIES = (
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/dev/mqueue",
    "/run",
    "/run/netns",
    "/var/lib/clawos/isolator",
)


def main() -> None:
    print(
        json.dumps(
            {
                "cgroups": sorted(_cgroups()),
                "mounts": sorted(_mounts()),
                "namespaces": sorted(_namespaces()),
                "processes": sorted(_processes()),
                "files": sorted(_files()),
                "memory": sorted(_lines("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")),
                "keys": sorted(_keys()),
            }
        )
    )


def _cgroups() -> Iterator[str]:
    base = Path("/sys/fs/cgroup/system.slice", UNIT)
    yield from (str(path.relative_to(base)) for path in base.rglob("*") if path.is_dir())


def _mounts() -> Iterator[str]:
    """The host's and the service's, which has a mount namespace of its own."""
    shown = subprocess.run(["systemctl", "show", "-P", "MainPID", UNIT], capture_output=True, text=True)
    for pid in ("1", shown.stdout.strip()):
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
            where, source = line.split()[4], line.split(" - ")[1]
            yield f"{'host' if pid == '1' else 'service'} {where} {source}"


def _namespaces() -> Iterator[str]:
    """Whatever keeps one: a process in it, a descriptor, a mount."""
    found = set()
    for pid in (p for p in os.listdir("/proc") if p.isdigit()):
        with contextlib.suppress(OSError):
            found |= {os.readlink(f"/proc/{pid}/ns/{name}") for name in os.listdir(f"/proc/{pid}/ns")}
            links = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
            found |= {link for link in links if re.match(r"(user|pid|mnt|net|ipc|uts|cgroup|time):\[", link)}
    # Those that our own transient unit and short-lived services come and go with do not count: they share the
    # first user namespace, which no sandbox does.
    yield from (name for name in found if name.startswith(("user:", "pid:")))


def _processes() -> Iterator[str]:
    """By user namespace and by user: whatever ids a sandbox has, one of them it cannot hide."""
    first = os.readlink("/proc/1/ns/user")
    for pid in (p for p in os.listdir("/proc") if p.isdigit()):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if os.readlink(f"/proc/{pid}/ns/user") != first or name in ("claw-launch", "claw-python"):
                yield f"{name} {os.stat(f'/proc/{pid}').st_uid}"
    users = subprocess.run(["ps", "-eo", "user:32,comm", "--no-headers"], capture_output=True, text=True)
    yield from (line for line in users.stdout.splitlines() if OURS.match(line))


def _files() -> Iterator[str]:
    for directory in DIRECTORIES:
        with contextlib.suppress(OSError):
            yield from (f"{directory}/{name}" for name in os.listdir(directory))


def _lines(*files: str) -> Iterator[str]:
    for file in files:
        yield from (
            f"{file} {' '.join(line.split()[:2])}" for line in Path(file).read_text().splitlines()[1:]
        )


def _keys() -> Iterator[str]:
    """How many keys each user of sandboxes holds: those above, and ids that have no name."""
    named = {user.pw_uid: user.pw_name for user in pwd.getpwall()}
    for line in Path("/proc/key-users").read_text().splitlines():
        user, _, rest = line.partition(":")
        if OURS.match(named.get(int(user), "clawos-sandbox")):
            yield f"{user.strip()} {rest.split()[1]}"


main()
