"""What the monitor costs: a guest boots without it, loads it, and measures with and without it in turn.

The measuring is in `monitor_guest/`; here it is brought to where it runs.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from qa.load import share as load
from qa.vm.machine import fresh_guest

HERE = Path("qa/bench/monitor_guest")
GUEST_TIMEOUT_S = 3600
# Loaded at boot its guard would let nobody take it off again. What waits for it may run without it here.
NOT_AT_BOOT = b"[Unit]\nConditionPathExists=/run/no-such-thing\n"
CREDENTIALS = {
    f"systemd.unit-dropin.{unit}": NOT_AT_BOOT
    for unit in ("clawos-monitor-load.service", "clawos-isolator.service")
}

NOTE = """`on` is the monitor as at boot but for its guard, attached, with its consumer reading; `off` is
the same guest with every program detached. Both are measured in each round, in an order that changes; a
percentage is the middle one of the rounds' ratios, beside it the middle half of them. `inside` is a cgroup
that the kernel side takes for a sandbox: all is recorded and policy is asked. `outside` is one that nobody
follows. execve is process, program, end and wait together; openat includes the close; connect is of a
datagram socket, which sends nothing. getppid, which no program sees, shows what the measuring itself is
worth. `per_program` is the kernel's own count (kernel.bpf_stats_enabled), which adds its clock to each run.
`unaccounted` is what was offered and neither received nor counted as lost."""


def share(folder: Path) -> None:
    """What the guest gets on a disk of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    load.make(folder)
    place = folder / load.PLACE
    for name in ("cost", "packets"):
        load.compiled(HERE / f"{name}.c", place / name)
    shutil.copy(HERE / "job.sh", place)
    shutil.copytree(HERE, place / HERE, ignore=shutil.ignore_patterns("__pycache__", "*.c"))
    (place / "qa/bench/__init__.py").touch()


def measure() -> dict[str, object]:
    folder = Path("build/bench/monitor")
    share(folder)
    image = Path("build/image/clawos.raw")
    with fresh_guest("bench-monitor", image, share=folder, credentials=CREDENTIALS) as machine:
        channel = machine.wait_for_channel()
        channel.run("systemctl is-system-running --wait; mount /dev/disk/by-label/share /mnt", 400)
        place = f"/mnt/{load.PLACE}"
        command = f"PYTHONPATH={place} python3 -B -m qa.bench.monitor_guest --tools {place}"
        done = channel.run(command, GUEST_TIMEOUT_S)
        sys.stderr.buffer.write(done.stderr)
        if done.status != 0:
            raise SystemExit(
                f"bench: the monitor's benchmark failed in the guest: {done.stderr.decode()[-2000:]}"
            )
        result: dict[str, Any] = json.loads(done.stdout)
        rows: list[dict[str, Any]] = [*result["acts"], *result["job"]]
        added: dict[str, dict[str, float]] = {}
        for row in rows:
            added.setdefault(row["where"], {})[row["what"]] = row["added_percent"]
        return {
            "note": NOTE,
            "accelerator": "kvm" if machine.kvm else "tcg",
            "added_percent": added,
            **result,
        }
