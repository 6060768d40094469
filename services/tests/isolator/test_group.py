"""Calls that start together, in real sandboxes: side by side and as chains."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clawos.core.errors import Busy
from clawos.isolator.config import Config
from clawos.isolator.errors import GroupTooLarge, SandboxRefused, SpecInvalid
from clawos.isolator.group import GroupHandle
from clawos.isolator.service import Isolator
from clawos.isolator.spec import CALLS_MAX

from .conftest import read_all
from .test_exhaustion import descriptors_left

pytestmark = pytest.mark.processes

OWNER = ":1.1"
Line = dict[str, Any]


@pytest.fixture
def config(config: Config) -> Config:
    return msgspec.structs.replace(
        config, running_max=8, user_running_max=7, queued_max=60, user_queued_max=60
    )


def held() -> tuple[int, set[str], int]:
    """Descriptors, children, threads."""
    family = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    feeds = sum(thread.name == "feed" for thread in threading.enumerate())
    return len(list(Path("/proc/self/fd").iterdir())), set(family), feeds


@pytest.fixture(autouse=True)
async def _nothing_is_lost(isolator: Isolator) -> AsyncIterator[None]:
    await (await asyncio.create_subprocess_exec("/bin/true")).wait()  # what asyncio keeps, it has now
    before = held()
    yield
    await until(lambda: isolator.status()["running"] == 0)
    assert isolator.status()["queued"] == 0
    await isolator.close()
    await until(lambda: held() == before)


def sh(script: str, **spec: Any) -> Line:
    return {"tool": "test.tool", "argv": ["/bin/sh", "-c", script], **spec}


def group_text(how: str, *calls: Line) -> str:
    """Calls of a chain that read another one say so."""
    return json.dumps(
        {"how": how, "calls": [{"stdin": how == "chain" and n > 0} | call for n, call in enumerate(calls)]}
    )


@dataclass(frozen=True)
class Ran:
    stdout: list[str]
    stderr: list[str]
    results: dict[int, Line]
    """By call: lines `result` and `error`."""
    done: Line


async def finish(group: GroupHandle) -> Ran:
    fds = (*group.stdout, *group.stderr, group.result)
    read = [data.decode() for data in await asyncio.gather(*(asyncio.to_thread(read_all, fd) for fd in fds))]
    *lines, done = map(json.loads, read[-1].splitlines())
    assert done["type"] == "done"
    outputs = len(group.stdout)
    return Ran(read[:outputs], read[outputs:-1], {line["call"]: line for line in lines}, done)


@dataclass(frozen=True)
class Start:
    isolator: Isolator

    async def __call__(self, how: str, *calls: Line, stdin: int | None = None) -> GroupHandle:
        given = os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin)
        return await self.isolator.run_group(group_text(how, *calls), given, OWNER)


@pytest.fixture
def start(isolator: Isolator) -> Start:
    return Start(isolator)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 # places have no event
            await asyncio.sleep(0.01)


def close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


async def test_a_chain_hands_on_what_is_written(start: Start) -> None:
    calls = sh("echo one; echo two; echo said >&2"), sh("grep o"), sh("tr a-z A-Z; echo end >&2")
    ran = await finish(await start("chain", *calls))
    assert ran.stdout == ["ONE\nTWO\n"]
    assert ran.stderr == ["said\n", "", "end\n"]
    assert [ran.results[n]["exit_code"] for n in range(3)] == [0, 0, 0]
    assert ran.done["failed"] is None


async def test_the_first_of_a_chain_reads_the_callers_input(start: Start) -> None:
    source, write = os.pipe()
    group = await start("chain", sh("cat", stdin=True), sh("wc -c"), stdin=source)
    await asyncio.to_thread(os.write, write, b"x" * 1000)
    close(source, write)
    assert (await finish(group)).stdout == ["1000\n"]


async def test_a_chain_streams(start: Start) -> None:
    """The first's words come out while it still runs: nothing is collected."""
    source, write = os.pipe()
    group = await start("chain", sh("cat", stdin=True), sh("cat"), sh("cat"), stdin=source)
    for word in (b"one", b"two"):
        os.write(write, word)
        assert await asyncio.to_thread(os.read, group.stdout[0], 100) == word
    close(source, write)
    assert (await finish(group)).done["failed"] is None


async def test_a_chain_presses_back(start: Start) -> None:
    """Who writes faster than the caller reads waits, through all sandboxes between."""
    script = "i=0; while head -c 65536 /dev/zero; do i=$((i+1)); echo $i >&2; [ $i -lt 40 ] || exit 0; done"
    group = await start("chain", sh(script, quota="medium"), sh("cat", quota="medium"))
    os.set_blocking(group.stderr[0], False)
    await asyncio.sleep(1.5)
    written = len(os.read(group.stderr[0], 10_000).split())
    os.set_blocking(group.stderr[0], True)
    assert 2 < written < 30, "what pipes and buffers hold, and no more"
    ran = await finish(group)
    assert len(ran.stdout[0]) == 40 * 65536, "and nothing was lost"
    assert ran.done["failed"] is None


async def test_more_than_the_output_limit_does_not_pass_a_chain(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    group = await start("chain", sh("yes"), sh("cat >/dev/null; echo counted"))
    ran = await finish(group)
    assert ran.results[0]["limit"] == "output"
    assert ran.results[1]["limit"] == "chain"
    assert ran.stdout == [""], "the second did not take a part for the whole"
    assert ran.done["failed"] == 0
    events = [record.__dict__ for record in caplog.records]
    told = {(e["CLAWOS_CALL"], e["CLAWOS_LIMIT"]) for e in events if e["CLAWOS_GROUP"] == group.id}
    assert told == {(f"{group.id}-0", "output"), (f"{group.id}-1", "chain")}


async def test_the_end_of_who_was_killed_is_not_passed_on(start: Start) -> None:
    ran = await finish(
        await start("chain", sh("echo part; kill -9 $$"), sh("cat >/dev/null; echo took it for the whole"))
    )
    assert (ran.results[0]["signal"], ran.results[0]["limit"]) == (9, None)
    assert ran.results[1]["limit"] == "chain"
    assert ran.stdout == [""]
    control = await finish(await start("chain", sh("echo part; exit 1"), sh("cat >/dev/null; echo took it")))
    assert control.stdout == ["took it\n"]


async def test_who_fails_first_is_named_and_the_others_go_on(start: Start) -> None:
    ran = await finish(
        await start("chain", sh("echo a"), sh("cat; exit 3"), sh("cat; exit 4"), sh("cat; echo last"))
    )
    assert ran.stdout == ["a\nlast\n"]
    assert [ran.results[n]["exit_code"] for n in range(4)] == [0, 3, 4, 0]
    assert ran.done["failed"] == 1


async def test_who_reads_no_more_breaks_the_pipe_of_who_writes(start: Start) -> None:
    began = time.monotonic()
    ran = await finish(await start("chain", sh("exec yes"), sh("exec cat"), sh("exec head -n 2")))
    assert ran.stdout == ["y\ny\n"]
    assert [ran.results[n]["signal"] for n in range(3)] == [13, 13, None]
    assert [ran.results[n]["cut"] for n in range(3)] == [True, True, False]
    assert ran.done["failed"] is None, "that is no failure: nobody wanted more"
    assert time.monotonic() - began < 20
    ran = await finish(await start("chain", sh("yes; exit $?"), sh("exec head -n 1")))
    assert (ran.results[0]["exit_code"], ran.done["failed"]) == (128 + 13, None), "as a shell tells it"
    ran = await finish(await start("chain", sh("exit 141"), sh("cat")))
    assert ran.done["failed"] == 0


async def test_a_wall_clock_in_a_chain_ends_all(start: Start) -> None:
    ran = await finish(await start("chain", sh("sleep 1009"), sh("cat", wall_s=1), sh("sleep 1010")))
    assert {n: ran.results[n]["limit"] for n in range(3)} == {0: "chain", 1: "wall", 2: "chain"}
    assert ran.done["failed"] == 1


async def test_a_chain_starts_whole_or_not_at_all(
    start: Start, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    user = {"home": "write", "home_owner": 0}
    first, last = sh("echo > /home/root/ran; sleep 1011", **user), sh("cat", **user)
    missing = {"tool": "test.tool", "argv": ["/usr/bin/no-such-program"], **user}
    with pytest.raises(
        SandboxRefused, match=r"call 1, test\.tool: the sandbox could not be set up: exec"
    ) as error:
        await start("chain", first, missing, last)
    assert error.value.fields == {"step": "exec", "errno": "ENOENT", "call": 1}
    event = caplog.records[-1].__dict__
    assert event["CLAWOS_LIMIT"] == "refused:exec"
    assert event["CLAWOS_CALL"] == event["CLAWOS_GROUP"] + "-1"
    ran = config.home / "0" / "ran"
    assert not ran.exists()
    group = await start("chain", first, last)
    await until(ran.exists)
    close(*group.stdout)
    await finish(replace(group, stdout=[]))


async def test_closing_the_last_stdout_ends_the_chain(start: Start) -> None:
    group = await start("chain", sh("sleep 1012"), sh("sleep 1013"))
    close(*group.stdout)
    ran = await finish(replace(group, stdout=[]))
    assert [ran.results[n]["limit"] for n in range(2)] == ["chain", "cancelled"]
    assert ran.done["failed"] == 1


async def test_the_next_may_take_its_time(
    isolator: Isolator, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time to read what is left of an output is the caller's, not that of another call."""
    monkeypatch.setattr(isolator._calls, "_drain_s", 0.3)
    ran = await finish(await start("chain", sh("head -c 300000 /dev/zero"), sh("sleep 1.5; wc -c")))
    assert ran.stdout == ["300000\n"]
    assert ran.done["failed"] is None


async def test_calls_side_by_side_have_their_own_streams(start: Start, isolator: Isolator) -> None:
    source, write = os.pipe()
    calls = [sh(f"read line; echo {n} $line; echo e{n} >&2; exit {n % 2}", stdin=n == 1) for n in range(3)]
    group = await start("parallel", *calls, stdin=source)
    os.write(write, b"input\n")
    ran = await finish(group)
    close(source, write)
    assert ran.stdout == ["0\n", "1 input\n", "2\n"]
    assert ran.stderr == ["e0\n", "e1\n", "e2\n"]
    assert [ran.results[n]["exit_code"] for n in range(3)] == [0, 1, 0]
    assert [ran.results[n]["id"] for n in range(3)] == [f"{group.id}-{n}" for n in range(3)]
    assert ran.done["failed"] == 1


async def test_calls_side_by_side_run_at_the_same_time(start: Start, isolator: Isolator) -> None:
    """As many as one message has descriptors for."""
    group = await start("parallel", *(sh("sleep 1014") for _ in range(CALLS_MAX)))
    assert isolator.status()["running"] == CALLS_MAX
    await isolator.cancel(group.id, OWNER)
    ran = await finish(group)
    assert {line["limit"] for line in ran.results.values()} == {"cancelled"}


async def test_who_is_refused_does_not_keep_those_beside_it(start: Start, isolator: Isolator) -> None:
    missing = {"tool": "test.tool", "argv": ["/usr/bin/no-such-program"]}
    ran = await finish(await start("parallel", sh("echo a"), missing, sh("echo b")))
    assert ran.stdout == ["a\n", "", "b\n"]
    error = ran.results[1]
    assert (error["type"], error["name"]) == ("error", "SandboxRefused")
    assert error["message"].startswith("call 1, test.tool: the sandbox could not be set up: exec")
    assert ran.done["failed"] == 1


@pytest.mark.parametrize("how", ["parallel", "chain"])
async def test_one_call_can_be_cancelled(start: Start, isolator: Isolator, how: str) -> None:
    group = await start(how, sh("sleep 2; echo slept"), sh("sleep 1015"))
    await isolator.cancel(f"{group.id}-1", ":1.2")
    await isolator.cancel(f"{group.id}-1", OWNER)
    ran = await finish(group)
    assert ran.results[1]["limit"] == "cancelled"
    assert ran.results[0]["limit"] == ("chain" if how == "chain" else None)
    assert ran.done["failed"] == 1


@pytest.mark.parametrize("how", ["parallel", "chain"])
@pytest.mark.parametrize("leave", [False, True])
async def test_a_group_ends_as_one(start: Start, isolator: Isolator, how: str, leave: bool) -> None:
    group = await start(how, *(sh(f"sleep {1016 + n}") for n in range(3)))
    await isolator.cancel(group.id, ":1.2")
    isolator.vanished(":1.2")
    await asyncio.sleep(0.2)
    assert isolator.status()["running"] == 3, "another's it is not to end"
    if leave:
        isolator.vanished(OWNER)
    else:
        await isolator.cancel(group.id, OWNER)
    ran = await finish(group)
    assert {line["limit"] for line in ran.results.values()} == {"cancelled"}
    assert ran.done["failed"] == 0
    await isolator.cancel(group.id, OWNER)


# Half of a sandbox by bubblewrap ends with its cgroup, which there is none of here.
@pytest.mark.parametrize("backend", ["launcher"], indirect=True)
@pytest.mark.parametrize("how", ["parallel", "chain"])
async def test_who_leaves_while_a_group_starts_leaves_nothing(
    start: Start, isolator: Isolator, how: str
) -> None:
    left_early = 0
    for wait_ms in (0, 1, 2, 4, 8, 16, 32):
        starting = asyncio.create_task(start(how, *(sh(f"sleep {1020 + n}") for n in range(4))))
        await asyncio.sleep(wait_ms / 1000)
        isolator.vanished(OWNER)
        try:
            ran = await finish(await starting)
        except asyncio.CancelledError:
            left_early += 1
        else:
            assert {line["limit"] for line in ran.results.values()} == {"cancelled"}
    assert left_early > 1


@pytest.mark.parametrize("how", ["parallel", "chain"])
async def test_a_group_waits_until_all_fit(start: Start, isolator: Isolator, how: str) -> None:
    first = await start("parallel", *(sh("sleep 1024") for _ in range(5)))
    calls = [sh("echo x") for _ in range(3)]
    waiting = asyncio.create_task(start(how, *calls))
    await asyncio.sleep(0.2)
    assert (isolator.status()["running"], isolator.status()["queued"]) == (5, 3)
    await isolator.cancel(first.id, OWNER)
    await finish(first)
    assert (await finish(await waiting)).done["failed"] is None


async def test_many_chains_in_few_places_all_end(start: Start, isolator: Isolator) -> None:
    """Taken place by place they would wait for each other: see test_queue.py."""
    most = 0

    async def chain(number: int) -> Ran:
        nonlocal most
        group = await start("chain", *(sh("cat") for _ in range(2)), sh(f"cat; echo {number}"))
        most = max(most, isolator.status()["running"])
        return await finish(group)

    ended = await asyncio.wait_for(asyncio.gather(*map(chain, range(18))), 100)
    assert [ran.stdout for ran in ended] == [[f"{number}\n"] for number in range(18)]
    assert most <= 7


async def test_a_group_that_never_fits_is_told_so(
    isolator: Isolator, start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolator._queue, "_user_running_max", 2)
    with pytest.raises(GroupTooLarge, match="3 calls never run at a time: user_running_max is 2"):
        await start("chain", sh("true"), sh("cat"), sh("cat"))
    told = [record.__dict__ for record in caplog.records]
    assert [event["CLAWOS_LIMIT"] for event in told] == ["refused:queue"] * 3
    assert len({event["CLAWOS_GROUP"] for event in told}) == 1
    monkeypatch.setattr(isolator._queue, "_user_queued_max", 1)
    group = await start("parallel", sh("sleep 1025"))
    with pytest.raises(Busy, match="0 calls of this user wait already"):
        await start("parallel", sh("true"), sh("true"))
    await isolator.cancel(group.id, OWNER)
    await finish(group)


@pytest.mark.parametrize(
    ("how", "calls", "why"),
    [
        ("chain", [], r"length >= 1 - at `\$.calls`"),
        ("chain", [sh("true")] * 8, r"length <= 7 - at `\$.calls`"),
        ("sideways", [sh("true")], r"Invalid enum value 'sideways' - at `\$.how`"),
        ("chain", [sh("true"), sh("cat", quota="huge")], "calls\\[1\\]: spec: no quota is called 'huge'"),
        (
            "chain",
            [sh("true"), {"tool": "t", "argv": ["cat"]}],
            "calls\\[1\\]: argv\\[0\\] is not the absolute",
        ),
        ("chain", [sh("true"), sh("cat", stdin=False)], "calls\\[1\\]: stdin is false"),
        ("chain", [sh("true"), sh("cat", home_owner=1)], "calls\\[1\\] is for another user"),
        ("parallel", [sh("cat", stdin=True)] * 2, "only one of the calls"),
        ("parallel", [sh("true", color="red")], "unknown field `color` - at `\\$.calls"),
    ],
)
async def test_what_is_no_group_is_refused(
    start: Start, how: str, calls: list[Line], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SpecInvalid, match=why):
        await start(how, *calls)
    assert caplog.records[-1].__dict__["CLAWOS_LIMIT"] == "refused:spec"


@pytest.mark.parametrize("how", ["parallel", "chain"])
async def test_without_descriptors_nothing_is_lost(start: Start, isolator: Isolator, how: str) -> None:
    calls = sh("cat", stdin=True), sh("cat"), sh("cat")
    await finish(await start(how, *calls))
    outcomes = Counter[str]()
    for spare in range(0, 80, 2):
        given, before = os.open(os.devnull, os.O_RDONLY), held()
        try:
            with descriptors_left(spare):
                group = await isolator.run_group(group_text(how, *calls), given, OWNER)
        except SandboxRefused as error:
            outcomes[f"refused: {error.fields['errno']}"] += 1
        else:
            ran = await finish(group)
            outcomes["told" if ran.done["failed"] is not None else "ran"] += 1
        await until(lambda: isolator.status()["running"] == 0)
        gc.collect()
        descriptors, family, feeds = before
        await until(lambda: held() == (descriptors - 1, family, feeds))  # noqa: B023 # and `given`
    refused, ran_at_last = outcomes.pop("refused: EMFILE"), outcomes.pop("ran")
    assert refused > 5
    assert ran_at_last > 5
    assert set(outcomes) == ({"told"} if how == "parallel" else set())
