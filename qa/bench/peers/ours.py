"""Our sandbox as the service starts it: the `Launcher` class in an event loop."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Awaitable, Callable
from itertools import count

from clawos.isolator.launcher import Launcher
from clawos.isolator.plan import Plan
from clawos.isolator.ports import Outcome, Streams
from qa.bench.peers.spawner import ArmFailed, Spawned

_number = count()


def _cpu_ms() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return (own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime) * 1000


async def call(launcher: Launcher, plan: Plan, streams: Streams) -> Outcome:
    """Raises ArmFailed."""
    running = await launcher.start(f"bench-{next(_number)}", plan, streams)
    outcome = await running.wait()
    if outcome.exit_code != 0:
        raise ArmFailed(f"Launcher: {outcome}")
    return outcome


def arm(launcher: Launcher, plan: Plan) -> Callable[[], Awaitable[Spawned]]:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    streams = Streams(null, null, null)

    async def once() -> Spawned:
        cpu_ms, started = _cpu_ms(), time.perf_counter()
        await call(launcher, plan, streams)
        wall_ms = (time.perf_counter() - started) * 1000
        return Spawned(wall_ms, _cpu_ms() - cpu_ms)

    return once


async def calls_per_s(launcher: Launcher, plan: Plan, in_flight: int, calls: int) -> float:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    streams = Streams(null, null, null)

    async def worker() -> None:
        for _ in range(calls // in_flight):
            await call(launcher, plan, streams)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed = time.perf_counter() - started
    os.close(null)
    return calls // in_flight * in_flight / elapsed
