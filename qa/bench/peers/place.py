"""Where the arms run: what there is, what is mounted for them, and how undisturbed it is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clawos.isolator.cgroup import Cgroups
from clawos.isolator.quotas import Quota

# An empty directory of every Debian, below the /usr that all sandboxes see; the payload is mounted there.
STAND = Path("/usr/local/libexec")
PAYLOAD = str(STAND / "payload")
PYTHON_FILE = str(STAND / "pass.py")


@dataclass(frozen=True)
class Place:
    scratch: Path
    tools: Path
    peers: Path
    launcher: Path
    zygote: Path
    policies: Path
    cgroup: Path | None
    """A delegated subtree whose leaves may get limits, or none."""
    limits: Mapping[str, str]
    """What the service writes into a leaf."""
    systemd: bool

    @property
    def spawner(self) -> Path:
        return self.tools / "spawner"


@contextmanager
def mounted(tools: Path, *, hide_cgroups: bool) -> Iterator[None]:
    """The payload below /usr, in every arm's sight; in the tools root this mount namespace is our own.

    Where no cgroup controllers are to be had, the runtimes see an empty cgroup v2 tree instead of a mixed
    one, which crun does not take and which costs runc more.
    """
    mounts = [(["--bind", str(tools)], STAND)]
    if hide_cgroups:
        mounts.append((["-t", "cgroup2", "none"], Path("/sys/fs/cgroup")))
    for words, target in mounts:
        subprocess.run(["mount", *words, target], check=True)
    try:
        yield
    finally:
        for _, target in mounts:
            subprocess.run(["umount", "--lazy", target], check=True)


@contextmanager
def undisturbed(*pids: int) -> Iterator[bool]:
    """This process, these, and what they start go ahead of all other work; yields whether that was granted.

    Only for one call after another: the kernel takes namespaces down in threads of ordinary rank.
    """
    ours = (0, *pids)
    try:
        for pid in ours:
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
        yield True
    except PermissionError:
        yield False
    finally:
        for pid in ours:
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


async def limits_of(cgroups: Cgroups, quota: Quota) -> dict[str, str]:
    """What a leaf of the service's has that a new cgroup has not: nobody need say it twice."""
    leaf = await cgroups.create("bench", quota)
    plain = cgroups.base / "bench-plain"
    plain.mkdir()
    try:
        return dict(_differing(leaf.path, plain))
    finally:
        plain.rmdir()
        await leaf.remove()


def _differing(leaf: Path, plain: Path) -> Iterator[tuple[str, str]]:
    for file in leaf.iterdir():
        if (
            file.stat().st_mode & 0o600 == 0o600
            and (value := file.read_text()) != (plain / file.name).read_text()
        ):
            yield file.name, value.strip()
