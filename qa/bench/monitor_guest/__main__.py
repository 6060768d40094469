"""In the guest: what the monitor costs, on against off, turn by turn. Prints one JSON object.

python3 -B -m qa.bench.monitor_guest --tools FOLDER [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qa.bench.monitor_guest.consumer import consumer
from qa.bench.monitor_guest.switch import Switch
from qa.bench.monitor_guest.xdp import xdp
from qa.load import bpf

CGROUPS = Path("/sys/fs/cgroup")
OUTSIDE = CGROUPS / "bench-outside"
# By its name the kernel side takes it for a sandbox, with all that is recorded and enforced there.
INSIDE = CGROUPS / "system.slice/clawos-isolator.service/call-00000000000bec40"
PLACES = {"outside": OUTSIDE, "inside": INSIDE}
ACTS = {"getppid": 200_000, "execve": 120, "openat": 10_000, "connect": 10_000}
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--job-rounds", type=int, default=6)
    asked = parser.parse_args()
    switch = Switch()
    switch.set(on=True)
    for place in PLACES.values():
        place.mkdir(exist_ok=True, parents=True)
    subprocess.run(["systemctl", "start", "clawos-monitor"], check=True)
    subprocess.run(["ip", "address", "add", "198.19.255.1/32", "dev", "lo"], check=True)
    result = {
        "programs": len(switch.programs),
        "acts": acts(switch, asked.tools, asked.rounds),
        "job": jobs(switch, asked.tools, asked.job_rounds),
        "per_program": per_program(switch, asked.tools),
    }
    switch.set(on=True)
    say("consumer")
    result["consumer"] = consumer(asked.tools, INSIDE, OUTSIDE)
    say("xdp")
    result["xdp"] = xdp(asked.tools)
    print(json.dumps(result))


def alternate(
    switch: Switch, rounds: int, measure: Callable[[], dict[tuple[str, str], float]]
) -> dict[tuple[str, str], list[dict[bool, float]]]:
    """Every round measures with the monitor and without, in an order of its own."""
    found: dict[tuple[str, str], list[dict[bool, float]]] = {}
    chance = random.Random(5)
    for _ in range(rounds):
        order = [True, False]
        chance.shuffle(order)
        told: dict[bool, dict[tuple[str, str], float]] = {}
        for on in order:
            switch.set(on=on)
            told[on] = measure()
        for key in told[True]:
            found.setdefault(key, []).append({on: told[on][key] for on in order})
    return found


def row(key: tuple[str, str], rounds: list[dict[bool, float]], unit: str) -> dict[str, Any]:
    """Of each round the one against the other; of all rounds the middle one, and the middle half."""
    ratios = sorted(one[True] / one[False] for one in rounds)
    quarter = len(ratios) // 4
    return {
        "what": key[0],
        "where": key[1],
        f"off_{unit}": round(statistics.median(one[False] for one in rounds), 4),
        f"on_{unit}": round(statistics.median(one[True] for one in rounds), 4),
        "added_percent": round((statistics.median(ratios) - 1) * 100, 2),
        "middle_half_percent": f"{(ratios[quarter] - 1) * 100:.2f} to {(ratios[-1 - quarter] - 1) * 100:.2f}",
    }


def acts(switch: Switch, tools: Path, rounds: int) -> list[dict[str, Any]]:
    def measure() -> dict[tuple[str, str], float]:
        return {
            (act, name): cost(tools, place, act, number) / 1e3
            for act, number in ACTS.items()
            for name, place in PLACES.items()
        }

    say("acts")
    measure()
    return [row(key, one, "us") for key, one in alternate(switch, rounds, measure).items()]


def cost(tools: Path, place: Path, act: str, number: int) -> float:
    """Nanoseconds each."""
    command = [str(tools / "cost"), str(place), act, str(number)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def jobs(switch: Switch, tools: Path, rounds: int) -> list[dict[str, Any]]:
    def measure() -> dict[tuple[str, str], float]:
        return {("build", name): job(tools, place) for name, place in PLACES.items()}

    say("job")
    return [row(key, one, "s") for key, one in alternate(switch, rounds, measure).items()]


def job(tools: Path, place: Path) -> float:
    """Seconds that a job of many processes and files takes there."""
    command: list[str | Path] = [tools / "cost", place, "run", "/bin/sh", tools / "job.sh"]
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def per_program(switch: Switch, tools: Path) -> list[dict[str, Any]]:
    """A second opinion, the kernel's own: what each program took of the acts outside and inside."""
    say("programs")
    switch.set(on=True)
    told: dict[str, dict[str, Any]] = {}
    STATS.write_text("1")
    try:
        for name, place in PLACES.items():
            before = {program: bpf.runs(fd) for program, fd in switch.programs.items()}
            for act, number in ACTS.items():
                cost(tools, place, act, number)
            for program, fd in switch.programs.items():
                runs, taken = (now - then for now, then in zip(bpf.runs(fd), before[program], strict=True))
                if runs > 50:
                    entry = told.setdefault(program, {"program": program})
                    entry |= {f"{name}_runs": runs, f"{name}_ns": round(taken / runs)}
    finally:
        STATS.write_text("0")
    columns = ["program", *(f"{name}_{what}" for name in PLACES for what in ("runs", "ns"))]
    return [{column: entry.get(column, "") for column in columns} for entry in told.values()]


if __name__ == "__main__":
    os.nice(-10)
    main()
