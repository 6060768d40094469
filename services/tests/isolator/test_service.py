"""The isolator's behaviour, with a sandbox that does as the test says."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clawos.core.errors import Busy
from clawos.isolator import service
from clawos.isolator.config import Config
from clawos.isolator.errors import SandboxRefused, SpecInvalid
from clawos.isolator.launcher import LinuxMachine
from clawos.isolator.plan import Plan
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Outcome, Running, Streams
from clawos.isolator.service import Isolator

from .conftest import finish, queue_of, spec_text


def outcome(**change: Any) -> Outcome:
    values: dict[str, Any] = {
        "exit_code": 0,
        "signal": None,
        "out_of_time": False,
        "out_of_memory": False,
        "out_of_pids": False,
        "cpu_s": 0.25,
        "peak_memory_bytes": 4096,
        "peak_pids": 3,
        "landlock_abi": 6,
    }
    return Outcome(**{**values, **change})


class Scripted:
    """Both sandbox and what runs in it: writes, waits to be told, ends as told."""

    def __init__(self, ends: Outcome | Exception, writes: bytes = b"", wait: bool = False) -> None:
        self.ends = ends
        self.writes = writes
        self.over = asyncio.Event()
        if not wait:
            self.over.set()
        self.stdout = -1
        self.killed = False

    async def start(self, call_id: str, plan: Plan, streams: Streams) -> Running:
        self.stdout = os.dup(streams.stdout)
        return self

    async def wait(self) -> Outcome:
        if self.writes:
            await asyncio.to_thread(os.write, self.stdout, self.writes)
        await self.over.wait()
        os.close(self.stdout)
        if isinstance(self.ends, Exception):
            raise self.ends
        return self.ends

    def kill(self) -> None:
        self.killed = True
        self.over.set()

    async def close(self) -> None:
        pass


class Refusing:
    async def start(self, call_id: str, plan: Plan, streams: Streams) -> Running:
        raise SandboxRefused("seccomp", 22)

    async def close(self) -> None:
        pass


def isolator(planner: Planner, sandbox: Scripted | Refusing, config: Config) -> Isolator:
    return Isolator(planner, sandbox, LinuxMachine(None), queue_of(config), config.drain_s)


def changed(config: Config, **change: Any) -> Config:
    return Config(**{f: getattr(config, f) for f in config.__struct_fields__} | change)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def null() -> int:
    return os.open(os.devnull, os.O_RDONLY)


@pytest.mark.parametrize(
    ("ends", "limit"),
    [
        (outcome(), None),
        (outcome(exit_code=3), None),
        (outcome(exit_code=None, signal=9, out_of_time=True), "wall"),
        (outcome(exit_code=None, signal=9, out_of_memory=True), "memory"),
        (outcome(exit_code=2, out_of_pids=True), "pids"),
        (outcome(exit_code=0, out_of_pids=True), None),
    ],
)
async def test_the_limit_is_named(
    planner: Planner, config: Config, ends: Outcome, limit: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = isolator(planner, Scripted(ends, b"words"), config)
    ran = await finish(await made.run(spec_text("/usr/bin/true"), null(), ":1.1"))
    assert ran.stdout == "words"
    assert ran.result["limit"] == limit
    assert set(ran.result) == {
        "exit_code",
        "signal",
        "limit",
        "wall_s",
        "cpu_s",
        "peak_memory_bytes",
        "peak_pids",
        "out_of_memory",
        "landlock_abi",
        "cgroup_id",
    }
    assert (ran.result["peak_pids"], ran.result["out_of_memory"]) == (3, limit == "memory")
    (record,) = caplog.records
    assert record.__dict__["CLAWOS_TOOL"] == "test.tool"
    assert record.__dict__["CLAWOS_LIMIT"] == (limit or "")
    assert record.levelno == (logging.WARNING if limit else logging.INFO)


async def test_a_refusal_reaches_caller_and_journal(
    planner: Planner, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    made = isolator(planner, Refusing(), config)
    before = open_descriptors()
    with pytest.raises(SandboxRefused, match="seccomp: Invalid argument") as refused:
        await made.run(spec_text("/usr/bin/true", stdin=True), null(), ":1.1")
    await made.close()
    assert refused.value.fields == {"step": "seccomp", "errno": "EINVAL"}
    assert caplog.records[0].__dict__["CLAWOS_LIMIT"] == "refused:seccomp"
    assert made.status()["running"] == 0
    assert open_descriptors() == before, "no descriptor is lost"


async def test_a_wrong_spec_closes_what_came_with_it(planner: Planner, config: Config) -> None:
    fd = null()
    with pytest.raises(SpecInvalid):
        await isolator(planner, Refusing(), config).run("{}", fd, ":1.1")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_past_the_limits_it_is_busy(planner: Planner, config: Config) -> None:
    config = changed(config, running_max=1, queued_max=1, user_queued_max=1, queue_wait_s=0.1)
    made = isolator(planner, Scripted(outcome(), wait=True), config)
    call = await made.run(spec_text("/usr/bin/true"), null(), ":1.1")
    with pytest.raises(Busy):
        await made.run(spec_text("/usr/bin/true"), null(), ":1.1")
    await made.cancel(call.id, ":1.1")
    assert (await finish(call)).result["limit"] == "cancelled"
    assert made.status()["running"] == 0


async def test_who_leaves_while_waiting_is_forgotten(planner: Planner, config: Config) -> None:
    made = isolator(
        planner, Scripted(outcome(), wait=True), changed(config, running_max=1, user_running_max=1)
    )
    call = await made.run(spec_text("/usr/bin/true"), null(), ":1.1")
    waiting = asyncio.create_task(made.run(spec_text("/usr/bin/true"), null(), ":1.2"))
    await asyncio.sleep(0)
    assert made.status()["queued"] == 1
    made.vanished(":1.2")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert made.status()["queued"] == 0
    made.vanished(":1.1")
    await finish(call)


async def test_a_launcher_that_hangs_is_ended(
    planner: Planner, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_WALL_GRACE_S", 0.05)
    sandbox = Scripted(outcome(exit_code=None, signal=9, out_of_time=True), wait=True)
    made = isolator(planner, sandbox, config)
    ran = await finish(await made.run(spec_text("/usr/bin/true", wall_s=0.05), null(), ":1.1"))
    assert sandbox.killed
    assert ran.result["limit"] == "wall"


async def test_a_call_that_is_lost_gives_its_turn_back(
    planner: Planner, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    made = isolator(planner, Scripted(OSError("the leaf would not go")), config)
    call = await made.run(spec_text("/usr/bin/true"), null(), ":1.1")
    assert await asyncio.to_thread(os.read, call.result, 100) == b""
    for fd in (call.stdout, call.stderr, call.result):
        os.close(fd)
    assert made.status()["running"] == 0
    assert caplog.records[0].__dict__["CLAWOS_LIMIT"] == "lost"


async def test_a_stopping_isolator_starts_nothing(planner: Planner, config: Config) -> None:
    made = isolator(planner, Scripted(outcome()), config)
    await made.close()
    with pytest.raises(Busy, match="stopping"):
        await made.run(spec_text("/usr/bin/true"), null(), ":1.1")


async def test_stopping_does_not_wait_for_who_does_not_read(
    planner: Planner, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_CLOSE_S", 0.1)
    made = isolator(planner, Scripted(outcome(), b"x" * 100_000), config)
    call = await made.run(spec_text("/usr/bin/true"), null(), ":1.1")
    await asyncio.wait_for(made.close(), 10)
    for fd in (call.stdout, call.stderr, call.result):
        os.close(fd)


async def test_who_does_not_read_holds_his_turn_and_not_for_ever(
    planner: Planner, config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_DRAIN_S", 0.05)
    made = isolator(planner, Scripted(outcome(), b"x" * 400_000), changed(config, drain_s=0.5))
    before = open_descriptors()
    call = await made.run(spec_text("/usr/bin/true"), null(), ":1.1")
    assert b'"exit_code":0' in await asyncio.to_thread(os.read, call.result, 4096), (
        "the result waits less long"
    )
    assert made.status()["running"] == 1, "descriptors are held, and so is the turn"
    await until(lambda: made.status()["running"] == 0)
    assert caplog.records[-1].__dict__["CLAWOS_LIMIT"] == "unread"
    for fd in (call.stdout, call.stderr, call.result):
        os.close(fd)
    await made.close()
    assert open_descriptors() <= before


async def test_stopping_ends_what_waits_for_a_full_pipe(
    planner: Planner, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_CLOSE_S", 0.1)
    made = isolator(planner, Scripted(outcome(), b"x" * 400_000), config)
    call = await made.run(spec_text("/usr/bin/true"), null(), ":1.1")
    await asyncio.wait_for(made.close(), 10)
    for fd in (call.stdout, call.stderr, call.result):
        os.close(fd)
    assert made.status()["running"] == 0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 # descriptors and turns have no event
            await asyncio.sleep(0.01)


def test_status_names_what_there_is(planner: Planner, config: Config) -> None:
    status = isolator(planner, Refusing(), config).status()
    assert status["landlock_abi"] >= 6
    assert (status["running"], status["queued"], status["cgroup"]) == (0, 0, "none")
    assert len(status["namespaces"]) == 7
