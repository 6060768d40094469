"""The measures, each over all arms that run here."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from clawos.isolator.launcher import Launcher
from clawos.isolator.plan import Plan
from qa.bench.peers import arms, ours, protections, rounds, service
from qa.bench.peers.arms import BARE, BWRAP, OURS, ZYGOTE
from qa.bench.peers.place import PAYLOAD, Place, undisturbed
from qa.bench.peers.spawner import ArmFailed, Spawned, Spawner, in_parallel

# What the shipped manifests of time.now and math.eval ask for.
TOOL = {"tool": "time.now", "quota": "small", "seccomp": "shell"}
PYTHON_TOOL = {"tool": "math.eval", "quota": "small", "seccomp": "python"}
PYTHON_ARGV = ("/usr/bin/python3", "-c", "pass")
IN_FLIGHT = (1, 2, 4, 8)

_SETTLE_S = 2.0
_PAUSE_S = 0.2
_CLASS = "Launcher class"
_ZYGOTE_CLASS = "Launcher class, claw-python"
_PYTHON = "python: "


@dataclass(frozen=True)
class Pythons:
    """A Python that does nothing: by command line, and as a tool's file, which the zygote runs too."""

    command: Plan
    file: Plan
    zygote: Launcher


def spec(*argv: str, network: str = "none") -> str:
    return json.dumps({"argv": argv, "network": network, **TOOL})


def protected(place: Place, plan: Plan) -> list[dict[str, object]]:
    """Every arm's protections; its memory limit is tried with twice the quota."""
    outside = protections.outside(place.tools / "payload")
    too_much_mib = plan.quota.memory_bytes // 2**20 * 2
    probed = _told(place, arms.with_argv(plan, (PAYLOAD, "probe")), "probe")
    filled = _told(place, arms.with_argv(plan, (PAYLOAD, "fill", str(too_much_mib))), "fill")
    ends_late = {arm.name: arm.time_limit for arm in arms.all_of(place, plan, "named")}
    return [
        protections.row(
            name,
            protections.Seen.parse(text),
            outside,
            memory_limit="filled" not in filled[name],
            time_limit=ends_late[name],
        )
        for name, text in probed.items()
        if text
    ]


def _told(place: Place, plan: Plan, label: str) -> dict[str, str]:
    """What the program put out in each arm; nothing where the arm does not run here."""
    found = {}
    for arm in arms.all_of(place, plan, label):
        file = place.scratch / f"{label}-{arm.name}"
        one = Spawner(place.spawner, [arm.writing_to(file)], place.scratch)
        with one, contextlib.suppress(ArmFailed):  # a killed one too has told what it could
            one.run(arm.name)
        found[arm.name] = file.read_text() if file.exists() else ""
    return found


async def start_times(
    place: Place, launcher: Launcher, plan: Plan, pythons: Pythons, number: int
) -> dict[str, object]:
    """Everything in the same rounds: the static payload in every arm, Python in those it is compared with."""
    with_python = [
        arm.renamed(_PYTHON + arm.name)
        for arm in arms.all_of(place, pythons.command, "python")
        if arm.name in (BARE, OURS, BWRAP)
    ]
    copied = arms.zygote(place, pythons.file).renamed(_PYTHON + ZYGOTE)
    spawned = [*arms.all_of(place, plan, "empty"), *with_python]
    with (
        undisturbed() as granted,
        Spawner(place.spawner, [arm for arm in spawned if arm.is_request], place.scratch) as asking,
        Spawner(place.spawner, [arm for arm in spawned if not arm.is_request], place.scratch) as starting,
        Spawner(place.spawner, [copied], place.scratch) as copying,
    ):

        def by(spawner: Spawner, name: str) -> Callable[[], Awaitable[Spawned]]:
            async def once() -> Spawned:
                return spawner.run(name)

            return once

        once = {arm.name: by(asking if arm.is_request else starting, arm.name) for arm in spawned}
        once[_CLASS] = ours.arm(launcher, plan)
        once[_PYTHON + _CLASS] = ours.arm(launcher, pythons.command)
        once[copied.name] = by(copying, copied.name)
        once[_PYTHON + _ZYGOTE_CLASS] = ours.arm(pythons.zygote, pythons.file)
        times = await rounds.interleaved(once, number)
    names = {False: list[str](), True: list[str]()}
    for name in times:
        names[name.startswith(_PYTHON)].append(name)
    return {
        "real_time": granted,
        "start": rounds.rows({name: times[name] for name in names[False]}, BWRAP),
        "python": rounds.rows({name: times[name] for name in names[True]}, _PYTHON + BARE),
        "ours_to_bwrap": {
            "launcher": rounds.ratio(times[OURS], times[BWRAP]),
            "launcher_class": rounds.ratio(times[_CLASS], times[BWRAP]),
        },
        "python_to_bare": {
            "launcher": rounds.ratio(times[_PYTHON + OURS], times[_PYTHON + BARE]),
            "launcher_class": rounds.ratio(times[_PYTHON + _CLASS], times[_PYTHON + BARE]),
            "zygote": rounds.ratio(times[copied.name], times[_PYTHON + BARE]),
            "zygote_class": rounds.ratio(times[_PYTHON + _ZYGOTE_CLASS], times[_PYTHON + BARE]),
        },
    }


async def throughput(
    place: Place, launcher: Launcher, plan: Plan, pythons: Pythons, calls: int
) -> dict[str, object]:
    """Without the bus. What the launcher alone does is the most that a service around it could reach."""
    made = [arm for arm in arms.all_of(place, plan, "throughput") if arm.name == OURS]

    async def alone(in_flight: int) -> float:
        with contextlib.ExitStack() as stack:
            spawners = [
                stack.enter_context(Spawner(place.spawner, made, place.scratch)) for _ in range(in_flight)
            ]
            return in_parallel(spawners, OURS, calls // in_flight)

    async def by_class(in_flight: int) -> float:
        return await ours.calls_per_s(launcher, plan, in_flight, calls)

    async def by_zygote(in_flight: int) -> float:
        return await ours.calls_per_s(pythons.zygote, pythons.file, in_flight, calls)

    return {
        "launcher": await _in_both_classes(alone),
        "launcher_class": await _in_both_classes(by_class),
        "zygote_class": await _in_both_classes(by_zygote),
    }


async def _in_both_classes(per_s: Callable[[int], Awaitable[float]], *pids: int) -> dict[str, float]:
    """As any process beside what else runs; then ahead of it, when network namespaces wait to be taken down.

    A busy machine shows less than is possible in the first, and any machine a little more in the second.
    """
    found = {f"in_flight_{n}": await per_s(n) for n in IN_FLIGHT}
    for n in IN_FLIGHT:
        with undisturbed(*pids):
            found[f"real_time_in_flight_{n}"] = await per_s(n)
        await asyncio.sleep(_SETTLE_S)
    return {name: round(value, 1) for name, value in found.items()}


async def over_the_bus(served: service.Served, calls: int, *, has_way_out: bool) -> dict[str, object]:
    """The static payload's one byte shows the isolator's own time, time.now's program that of a real tool.

    With the way out there is time between two calls, as an agent leaves it: the next link is made in it.
    """
    with undisturbed(served.pid, served.daemon_pid):
        latency = {
            "payload": await service.latency(served, spec(PAYLOAD, "say"), calls),
            "time_now": await service.latency(served, spec("/usr/bin/date"), calls),
        }
        for network in ("none", "egress") if has_way_out else ():
            said = spec(PAYLOAD, "say", network=network)
            latency[f"payload_apart_{network}"] = await service.latency(served, said, calls, _PAUSE_S)

    async def per_s(in_flight: int) -> float:
        return await service.calls_per_s(served, spec(PAYLOAD), in_flight, calls)

    return {**latency, "calls_per_s": await _in_both_classes(per_s, served.pid, served.daemon_pid)}


async def memory(served: service.Served, calls: int) -> dict[str, object]:
    """Growth is counted from the second row on: the first calls fill caches once."""
    table = await service.memory(served, spec(PAYLOAD), calls, max(1, calls // 10))
    first, last = table[1], table[-1]
    return {
        "table": table,
        "growth_kib": last["anonymous_kib"] - first["anonymous_kib"],
        "leaked_descriptors": last["descriptors"] - first["descriptors"],
        "leaked_threads": last["threads"] - first["threads"],
    }
