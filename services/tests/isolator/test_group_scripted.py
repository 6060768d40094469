"""Groups with sandboxes that do as the test says: what seldom happens to real ones."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from clawos.core.stream import Writer
from clawos.isolator import relay
from clawos.isolator.config import Config
from clawos.isolator.launcher import LinuxMachine
from clawos.isolator.plan import Plan
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Outcome, Running, Streams
from clawos.isolator.service import Isolator

from .conftest import queue_of, read_all
from .test_service import Scripted, null, outcome, until


class Several:
    """A sandbox for each call, by its number; one that there is none for never starts."""

    def __init__(self, scripted: dict[int, Scripted]) -> None:
        self.scripted = scripted
        self.waiting = asyncio.Event()

    async def start(self, call_id: str, plan: Plan, streams: Streams) -> Running:
        scripted = self.scripted.get(int(call_id.rpartition("-")[2]))
        if scripted is None:
            self.waiting.set()
            await asyncio.Event().wait()
            raise AssertionError
        return await scripted.start(call_id, plan, streams)

    async def close(self) -> None:
        pass


def isolator(planner: Planner, config: Config, sandbox: Several) -> Isolator:
    return Isolator(planner, sandbox, LinuxMachine(None), queue_of(config), config.drain_s)


def group_text(how: str, calls: int) -> str:
    spec = {"tool": "test.tool", "argv": ["/usr/bin/true"]}
    return json.dumps(
        {"how": how, "calls": [spec | {"stdin": how == "chain" and n > 0} for n in range(calls)]}
    )


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(("how", "last"), [("parallel", 1), ("chain", 0)])
async def test_who_leaves_while_one_starts_ends_those_that_have(
    planner: Planner, config: Config, how: str, last: int
) -> None:
    before = descriptors()
    started = Scripted(outcome(exit_code=None, signal=9), wait=True)
    sandbox = Several({1 - last: started})
    made = isolator(planner, config, sandbox)
    starting = asyncio.create_task(made.run_group(group_text(how, 2), null(), ":1.1"))
    await sandbox.waiting.wait()
    await asyncio.sleep(0.05)
    assert made.status()["running"] == 2
    made.vanished(":1.1")
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert started.killed
    assert made.status()["running"] == 0
    await made.close()
    assert descriptors() == before


@pytest.mark.parametrize("how", ["parallel", "chain"])
async def test_a_call_that_is_lost_is_told(planner: Planner, config: Config, how: str) -> None:
    ends: list[Outcome | Exception] = [OSError("the leaf would not go"), outcome(exit_code=None, signal=9)]
    second = Scripted(ends[1], wait=True)
    if how == "parallel":
        second = Scripted(outcome())
    made = isolator(planner, config, Several({0: Scripted(ends[0]), 1: second}))
    group = await made.run_group(group_text(how, 2), null(), ":1.1")
    *lines, done = map(json.loads, (await asyncio.to_thread(read_all, group.result)).splitlines())
    told = {line["call"]: line for line in lines}
    assert (told[0]["type"], told[0]["name"]) == ("error", "Internal")
    assert f"CLAWOS_CALL={group.id}-0" in told[0]["hint"]
    assert (told[1]["limit"], second.killed) == (("chain", True) if how == "chain" else (None, False))
    assert (done["type"], done["failed"]) == ("done", 0)
    for fd in (*group.stdout, *group.stderr):
        os.close(fd)
    await until(lambda: made.status()["running"] == 0)


@pytest.mark.parametrize("whole", [True, False])
async def test_the_end_is_passed_on_if_it_is_one(whole: bool) -> None:
    """Until the next one is gone: it may take a moment to be killed."""
    source, write = os.pipe()
    sink, writer = await Writer.open()
    os.set_blocking(sink, False)

    async def is_whole() -> bool:
        return whole

    link = asyncio.create_task(
        relay.link(source, writer, relay.Budget(1000), lambda: None, lambda: None, is_whole)
    )
    os.write(write, b"part")
    os.close(write)
    await asyncio.sleep(0.1)
    assert os.read(sink, 100) == b"part"
    assert link.done() == whole
    if whole:
        assert os.read(sink, 100) == b""
    else:
        with pytest.raises(BlockingIOError):
            os.read(sink, 100)
    os.close(sink)
    await asyncio.wait_for(link, 5)
