"""The sandbox benchmark on the machine it runs on; prints JSON.

`qa/bench/sandbox.py` runs it twice: beside the build, and in the guest with everything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from clawos.isolator import quotas
from clawos.isolator.cgroup import Cgroups
from clawos.isolator.config import Config
from clawos.isolator.filters import load as load_filters
from clawos.isolator.launcher import Launcher
from clawos.isolator.planner import Planner
from clawos.isolator.python.zygote import command as zygote_command
from clawos.isolator.spec import parse
from qa.bench.peers import measures, service
from qa.bench.peers.place import PAYLOAD, PYTHON_FILE, STAND, Place, limits_of, mounted


def arguments() -> argparse.Namespace:
    installed = Config()
    parser = argparse.ArgumentParser(prog="qa.bench.peers", description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="folder with spawner and payload")
    parser.add_argument("--peers", type=Path, required=True, help="what qa/bench/peers/fetch printed")
    parser.add_argument("--launcher", type=Path, default=installed.launcher)
    parser.add_argument("--zygote", type=Path, default=installed.zygote)
    parser.add_argument("--filters", type=Path, default=installed.filters)
    parser.add_argument("--policies", type=Path, default=installed.quotas.parent)
    parser.add_argument(
        "--image", action="store_true", help="run in a unit with Delegate=; use the installed service"
    )
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--calls", type=int, default=400, help="for each measure of latency and throughput")
    parser.add_argument("--memory-calls", type=int, default=10_000)
    return parser.parse_args()


async def measure(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    config = Config(
        launcher=given.launcher,
        zygote=given.zygote,
        filters=given.filters,
        quotas=given.policies / "quotas.toml",
        python=(str(STAND),),
    )
    planner = Planner(config, quotas.load(config.quotas), load_filters(config.filters))
    plan = planner.plan(parse(measures.spec(PAYLOAD)))
    python_spec = {"argv": measures.PYTHON_ARGV, **measures.PYTHON_TOOL}
    python = planner.plan(parse(json.dumps(python_spec)))
    file_spec = {"argv": [PYTHON_FILE], "runtime": "python", **measures.PYTHON_TOOL}
    file = planner.plan(parse(json.dumps(file_spec)))
    cgroups = await Cgroups.claim() if given.image else None
    place = Place(
        scratch,
        given.tools,
        given.peers,
        given.launcher,
        given.zygote,
        given.policies,
        cgroups.base if cgroups else None,
        await limits_of(cgroups, plan.quota) if cgroups else {},
        systemd=given.image,
    )
    launcher = Launcher(config.launcher, cgroups)
    zygote = launcher.another(zygote_command(config))
    result: dict[str, object] = {"kernel": os.uname().release, "cgroups": "v2" if cgroups else "none"}
    say("protections")
    result["protections"] = measures.protected(place, plan)
    say(f"{given.rounds} rounds")
    result["rounds"] = given.rounds
    pythons = measures.Pythons(python, file, zygote)
    result |= await measures.start_times(place, launcher, plan, pythons, given.rounds)
    say("calls per second")
    result["calls_per_s"] = await measures.throughput(place, launcher, plan, pythons, given.calls)
    await zygote.close()
    paths = {"launcher": config.launcher, "filters": config.filters, "quotas": config.quotas}
    settings = {name: str(path) for name, path in paths.items()}
    async with service.installed() if given.image else service.own(scratch, settings) as served:
        say("the bus")
        result["bus"] = await measures.over_the_bus(served, given.calls, has_way_out=given.image)
        say("memory")
        result["memory"] = await measures.memory(served, given.memory_calls)
    return result


def say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as scratch, mounted(given.tools, hide_cgroups=not given.image):
        Path(scratch).chmod(0o755)  # sandboxes read what is written there as other users
        print(json.dumps(asyncio.run(measure(given, Path(scratch))), indent=1))


main()
