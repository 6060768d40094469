"""When a zygote is made, which calls are its copies, and when it goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clawos.isolator import backend as backends
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.filters import load as load_filters
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Streams
from clawos.isolator.python.zygote import WithZygote
from clawos.isolator.spec import parse

from .conftest import read_all, spec_text
from .pythons import READY_S, settings, written

pytestmark = pytest.mark.processes

# Only in a copy are there objects that the collector passes over; the hash tells one zygote from another.
FROZEN = "import gc; print(hash('x') if gc.get_freeze_count() else 'new')"
NEW = "new"


class Life:
    """A sandbox from its first call on."""

    def __init__(self, sandbox: WithZygote, planner: Planner) -> None:
        self.sandbox = sandbox
        self._planner = planner

    async def call(self, source: str = FROZEN) -> str:
        """What a file of Python put out."""
        plan = self._planner.plan(parse(spec_text(str(written(source)), runtime="python", seccomp="python")))
        read_end, write_end = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        running = await self.sandbox.start("1", plan, Streams(null, write_end, null))
        os.close(write_end)
        os.close(null)
        said = await asyncio.to_thread(read_all, read_end)
        await running.wait()
        return said.decode().strip()

    async def made(self) -> None:
        """Until the zygote that is being made is ready, or has failed."""
        if self.sandbox._making is not None:
            await self.sandbox._making

    async def begun(self) -> None:
        assert await self.call() == NEW
        await self.made()


@pytest.fixture
def config(launcher_path: Path, zygote_path: Path, filters_path: Path, tmp_path: Path) -> Iterator[Config]:
    with settings(launcher_path, zygote_path, filters_path, tmp_path) as made:
        yield made


Living = Callable[..., Awaitable[Life]]


@pytest.fixture
async def living(config: Config) -> AsyncIterator[Living]:
    planner = Planner(config, quotas.load(config.quotas), load_filters(config.filters))
    made: list[WithZygote] = []

    async def live(**settings: Any) -> Life:
        sandbox = await backends.choose(msgspec.structs.replace(config, **settings), None)
        assert isinstance(sandbox, WithZygote)
        made.append(sandbox)
        return Life(sandbox, planner)

    yield live
    for sandbox in made:
        await sandbox.close()


async def test_no_call_waits_for_the_zygote(living: Living) -> None:
    life = await living()
    assert life.sandbox._making is None
    assert await life.call() == NEW
    await life.made()
    assert await life.call() != NEW


async def test_it_is_renewed_after_so_many_calls(living: Living) -> None:
    life = await living(zygote_calls=3)
    await life.begun()
    first = {await life.call() for _ in range(4)}
    assert len(first) == 1, "it serves on while the next one is made"
    await life.made()
    assert await life.call() not in {NEW, *first}


async def test_it_is_renewed_after_so_long(living: Living) -> None:
    life = await living()
    await life.begun()
    first = await life.call()
    life.sandbox._since -= 3600
    assert await life.call() == first
    await life.made()
    assert await life.call() not in {NEW, first}


async def test_one_that_cannot_be_renewed_is_used_for_twice_its_time_at_most(living: Living) -> None:
    life = await living(zygote_calls=3)
    await life.begun()
    life.sandbox._next_try = float("inf")
    assert [await life.call() == NEW for _ in range(8)] == [False] * 6 + [True] * 2


async def test_it_ends_when_nobody_calls(living: Living) -> None:
    life = await living(zygote_idle_s=0.1)
    await life.begun()
    zygote = life.sandbox._zygote
    assert zygote is not None
    assert zygote._process is not None
    await asyncio.wait_for(zygote._process.wait(), READY_S)
    assert life.sandbox._zygote is None
    assert await life.call() == NEW


async def test_a_call_that_runs_keeps_the_retired_one(living: Living) -> None:
    life = await living()
    await life.begun()
    slow = asyncio.create_task(life.call("import time; time.sleep(0.5); print('to its end')"))
    await asyncio.sleep(0.2)
    life.sandbox._retire(life.sandbox._zygote)
    assert await life.call() == NEW
    assert await slow == "to its end"


async def test_when_it_is_killed_calls_go_on(living: Living, caplog: pytest.LogCaptureFixture) -> None:
    life = await living()
    await life.begun()
    slow = asyncio.create_task(life.call("import time; print('begun', flush=True); time.sleep(1022)"))
    await asyncio.sleep(0.2)
    assert life.sandbox._zygote is not None
    life.sandbox._zygote._give_up()
    assert await slow == "begun", "as with any launcher, its calls end with it"
    assert await life.call() == NEW
    assert "the zygote ended by itself" in caplog.text
    await life.made()
    assert await life.call() != NEW


async def test_where_it_does_not_start_calls_start_anew(
    living: Living, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    life = await living(zygote=tmp_path / "missing.so")
    await life.begun()
    assert await life.call() == NEW
    assert caplog.text.count("no zygote, Python starts anew in each call") == 1
    assert life.sandbox._making is None, "it is not tried again with every call"


async def test_it_can_be_switched_off(living: Living) -> None:
    life = await living(zygote_calls=0)
    assert await life.call() == NEW
    assert life.sandbox._making is None


async def test_the_end_of_the_service_is_its_end(living: Living) -> None:
    life = await living()
    await life.begun()
    zygote = life.sandbox._zygote
    await life.sandbox.close()
    assert zygote is not None
    assert zygote._process is not None
    assert zygote._process.returncode == 0
    started = await living()
    assert await started.call() == NEW
    await started.sandbox.close()  # while one is being made
    assert started.sandbox._making is None
