"""`claw top`: what services and sandboxes use, and how much happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from clawos.claw import output, services
from clawos.claw.services import Machine

_FIRST_S = 1.0
_EVERY_S = 2.0
_CLEAR = "\x1b[H\x1b[2J"


def sample(machine: Machine) -> dict[str, Any]:
    return {"at_s": time.monotonic(), **machine.ask(services.MONITOR, "Stats")}


def measured(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Shares and rates between two samples."""
    seconds = max(now["at_s"] - before["at_s"], 0.001)
    return {
        "events_per_s": round((now["events"] - before["events"]) / seconds, 1),
        "lost": now["lost"],
        "ring_used": now["ring_used"],
        "alerts": now["alerts"],
        "processes": now["processes"],
        "services": _rows("service", before, now, seconds),
        "calls": _rows("call", before, now, seconds),
    }


def _rows(
    name: str, before: Mapping[str, Any], now: Mapping[str, Any], seconds: float
) -> list[dict[str, Any]]:
    was = {row[name]: row["cpu_s"] for row in before[f"{name}s"]}
    rows = [
        {
            **row,
            "cpu_percent": round(100 * max(row["cpu_s"] - was.get(row[name], row["cpu_s"]), 0) / seconds, 1),
        }
        for row in now[f"{name}s"]
    ]
    return sorted(rows, key=lambda row: (-row["cpu_percent"], row[name]))


def show(found: Mapping[str, Any]) -> None:
    print(
        f"{found['events_per_s']:.0f} events/s, {found['lost']} lost, ring {100 * found['ring_used']:.0f} %, "
        f"{found['alerts']} alerts, {found['processes']} processes\n"
    )
    rows = [
        [row["service"], f"{row['cpu_percent']:.1f} %", output.size(row["memory_bytes"])]
        for row in found["services"]
    ]
    output.print_table(["SERVICE", "CPU", "MEMORY"], rows)
    if found["calls"]:
        print()
        rows = [
            [row["call"], row["tool"] or "?", f"{row['cpu_percent']:.1f} %", output.size(row["memory_bytes"])]
            for row in found["calls"]
        ]
        output.print_table(["CALL", "TOOL", "CPU", "MEMORY"], rows)


def once(machine: Machine) -> dict[str, Any]:
    before = sample(machine)
    time.sleep(_FIRST_S)
    return measured(before, sample(machine))


def run(machine: Machine) -> None:
    """On a terminal until Ctrl-C, else once."""
    show(once(machine)) if not output.is_terminal() else _refresh(machine)


def _refresh(machine: Machine) -> None:
    before = sample(machine)
    time.sleep(_FIRST_S)
    while True:
        now = sample(machine)
        sys.stdout.write(_CLEAR)
        show(measured(before, now))
        sys.stdout.flush()
        before = now
        time.sleep(_EVERY_S)
