"""In the guest, as root: which cgroups are followed. Prints JSON: cgroup → [call, kinds that were seen].

following.py [--bare] CGROUP…    bare: without the seccomp filter that ends a sandbox's set-up
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from clawos.monitor.source import PinnedRing

sys.path.insert(0, "/run")

from qa.monitor.in_cgroup import confine

TREE = Path("/sys/fs/cgroup")
PINS = Path("/sys/fs/bpf/clawos/monitor")
FILE = Path("/tmp/following")


def done_in(cgroup: Path, *, bare: bool) -> None:
    """A process there makes a file and changes its mode."""
    pid = os.fork()
    if not pid:
        (cgroup / "cgroup.procs").write_text("0")
        if not bare:
            confine()
        file = Path(f"{FILE}-{cgroup.stat().st_ino}")
        file.touch()
        file.chmod(0o600)
        os._exit(0)
    os.waitpid(pid, 0)


def seen(source: PinnedRing, cgroup: Path) -> tuple[str, list[str]]:
    number = cgroup.stat().st_ino
    events = []
    while more := source.read(10_000):
        events += [event for event in more if event.cgroup == number]
    (call,) = {event.call for event in events}
    return call, sorted({event.kind for event in events})


def main(names: list[str], *, bare: bool = False) -> None:
    source = PinnedRing.open(PINS)
    told = {}
    made = []
    for name in names:
        cgroup = TREE / name
        while source.read(10_000):
            pass
        if not cgroup.exists():
            cgroup.mkdir(parents=True)
            made.append(cgroup)
        done_in(cgroup, bare=bare)
        told[name] = seen(source, cgroup)
    for cgroup in reversed(made):
        cgroup.rmdir()
    print(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        main(sys.argv[2:], bare=True)
    else:
        main(sys.argv[1:])
