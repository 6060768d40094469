"""In the guest: the kernel side's counters, and what the consumer uses."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from clawos.monitor.kinds import Kind
from clawos.monitor.source import Array, open_pin

COUNTS = Path("/sys/fs/bpf/clawos/monitor/counts")
_COUNT = struct.Struct("=QQQQQ")
_TICKS = os.sysconf("SC_CLK_TCK")
UNIT = "clawos-monitor"


class Counts(NamedTuple):
    handed: int
    lost: int
    limited: int

    def since(self, before: Counts) -> Counts:
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


def counts(kind: Kind) -> Counts:
    """Of this kind, on all processors: handed over, lost, over its rate."""
    fd = open_pin(COUNTS)
    try:
        each = [_COUNT.unpack(value) for value in Array(fd, _COUNT.size)[kind]]
    finally:
        os.close(fd)
    return Counts(*(sum(one[field] for one in each) for field in range(3)))


def main_pid() -> int:
    command = ["systemctl", "show", "-P", "MainPID", UNIT]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def wait_until_idle(pid: int, timeout_s: float = 120) -> None:
    """Until it has read all there is."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        before = cpu_s(pid)
        time.sleep(1)
        if cpu_s(pid) - before < 0.1:
            return
    raise TimeoutError(f"{UNIT} is still busy after {timeout_s} s")


def peak_rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(peak.split()[1]) / 1024, 1)
