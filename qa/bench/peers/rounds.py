"""Rounds: every arm once in each, in a new order each time.

A sandbox's namespaces are taken down after its end, beside whatever runs next: no arm shall always pay for
the same neighbour.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from qa.bench.peers.spawner import ArmFailed, Spawned

Once = Callable[[], Awaitable[Spawned]]
_WARM_UP = 3
_SEED = 4


@dataclass
class Times:
    """What an arm took."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def add(self, spawned: Spawned) -> None:
        self.wall_ms.append(spawned.wall_ms)
        self.cpu_ms.append(spawned.cpu_ms)


async def interleaved(arms: Mapping[str, Once], rounds: int) -> dict[str, Times]:
    """An arm that fails in the warm-up is left out, and said so; later a failure ends the run."""
    working = dict(arms)
    for name, once in arms.items():
        try:
            for _ in range(_WARM_UP):
                await once()
        except ArmFailed as error:
            print(f"bench: left out: {error}", file=sys.stderr)
            del working[name]
    times = {name: Times() for name in working}
    order = list(working)
    shuffle = random.Random(_SEED).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].add(await working[name]())
    return times


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def summary(values: Sequence[float], unit: str = "ms") -> dict[str, float]:
    return {
        f"p50_{unit}": round(statistics.median(values), 3),
        f"p99_{unit}": round(percentile(values, 0.99), 3),
        f"min_{unit}": round(min(values), 3),
    }


def rows(times: Mapping[str, Times], baseline: str) -> list[dict[str, object]]:
    """A row an arm. Ratios are of medians, and of least values, which other work moves less."""
    table: list[dict[str, object]] = []
    base = times.get(baseline)
    for name, taken in times.items():
        row: dict[str, object] = {"arm": name, **summary(taken.wall_ms)}
        row["cpu_p50_ms"] = round(statistics.median(taken.cpu_ms), 3)
        if base:
            row[f"p50/{baseline}"] = round(ratio(taken, base), 2)
            row[f"min/{baseline}"] = round(min(taken.wall_ms) / min(base.wall_ms), 2)
        table.append(row)
    return table


def ratio(of: Times, to: Times) -> float:
    return statistics.median(of.wall_ms) / statistics.median(to.wall_ms)
