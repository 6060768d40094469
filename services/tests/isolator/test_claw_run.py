"""`claw sandbox run` as a process: real bus, real isolator, real sandboxes; and an agent that is played."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from clawos.core.bus import Bus
from clawos.isolator.config import ROOM, Config
from clawos.isolator.interface import IsolatorInterface
from clawos.isolator.service import Isolator

from .conftest import SERVICES

pytestmark = pytest.mark.processes

Begin = Callable[..., Awaitable[asyncio.subprocess.Process]]
Claw = Callable[..., Awaitable["Done"]]


class Done(msgspec.Struct, frozen=True):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def config(config: Config) -> Config:
    return msgspec.structs.replace(config, running_max=8, user_running_max=6)


@pytest.fixture(scope="module")
def agent(bus_address: str) -> Iterator[None]:
    """The agent's tools, as `claw/fakes.py` plays it."""
    uid = pwd.getpwnam("clawos-agent").pw_uid
    process = subprocess.Popen(
        [sys.executable, SERVICES / "tests" / "claw" / "fakes.py", bus_address, "agent", str(uid)],
        env={**os.environ, "PYTHONPATH": str(SERVICES / "src")},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
async def begin(
    isolator: Isolator,
    agent: None,  # it is there
    connect: Callable[[], Awaitable[Bus]],
    bus_address: str,
) -> Begin:
    server = await connect()
    await server.serve(ROOM.bus_name, ROOM.object_path, IsolatorInterface(isolator, server))

    async def start(*arguments: str, **more: Any) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "clawos.claw", "sandbox", "run", *arguments),
            env={**os.environ, "PYTHONPATH": str(SERVICES / "src"), "DBUS_SYSTEM_BUS_ADDRESS": bus_address},
            **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **more},
        )

    return start


@pytest.fixture
def claw(begin: Begin) -> Claw:
    """Run claw to its end: `await claw("shell.run", "command=true", stdin="words")`."""

    async def run(*arguments: str, stdin: str = "") -> Done:
        process = await begin(*arguments)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    return run


def sh(command: str) -> tuple[str, str]:
    return "shell.run", f"command={command}"


async def test_output_and_exit_code_are_the_tools(claw: Claw) -> None:
    assert await claw(*sh("echo out; echo err >&2; cat; exit 7"), stdin="unread") == Done(7, "out\n", "err\n")
    assert await claw(*sh("tr a-z A-Z"), "--stdin", stdin="words") == Done(0, "WORDS", "")
    assert (await claw(*sh("kill -TERM $$"))).code == 128 + 15


async def test_as_json_it_is_the_result(claw: Claw) -> None:
    done = await claw(*sh("echo out; echo err >&2; exit 7"), "--json")
    told = json.loads(done.stdout)
    assert (done.code, done.stderr) == (7, "")
    assert (told["tool"], told["stdout"], told["stderr"], told["error"]) == (
        "shell.run",
        "out\n",
        "err\n",
        None,
    )
    assert (told["result"]["exit_code"], told["result"]["limit"]) == (7, None)


async def test_a_chain(claw: Claw) -> None:
    chain = [*sh("cat; echo said >&2"), "--then", *sh("grep o"), "--then", *sh("wc -l")]
    assert await claw(*chain, "--stdin", stdin="one\ntwo\nsix\n") == Done(0, "2\n", "said\n")
    done = await claw(*sh("yes"), "--then", *sh("exit 3"), "--then", *sh("cat; echo last"))
    assert done == Done(3, "last\n", "claw: shell.run ended with exit code 3\n")
    told = json.loads((await claw(*sh("yes"), "--then", *sh("head -n 1"), "--json")).stdout)
    assert (told["how"], told["failed"]) == ("chain", None)
    assert [call["stdout"] for call in told["calls"]] == [None, "y\n"]
    assert told["calls"][0]["result"]["cut"]


async def test_at_the_same_time(claw: Claw) -> None:
    calls = [*sh("echo a; echo b"), "--and", *sh("echo c >&2; printf d; exit 4"), "--and", *sh("exit 5")]
    done = await claw(*calls)
    assert sorted(done.stdout.splitlines()) == ["0 shell.run: a", "0 shell.run: b", "1 shell.run: d"]
    assert done.stderr.splitlines() == ["1 shell.run: c", "claw: shell.run ended with exit code 4"]
    assert done.code == 4
    told = json.loads((await claw(*calls, "--json")).stdout)
    assert (told["how"], told["failed"]) == ("parallel", 1)
    assert [call["stdout"] for call in told["calls"]] == ["a\nb\n", "d", ""]


async def test_a_limit_is_said(claw: Claw) -> None:
    done = await claw(*sh("sleep 1040"), "--then", *sh("yes"))
    assert done.code == 137
    assert done.stderr == "claw: shell.run met a limit: output\n"


async def test_what_does_not_run_is_125(claw: Claw) -> None:
    for arguments, words in (
        (["no.such"], "there is no tool 'no.such'"),
        (["shell.run"], "data must contain"),
        (["power.off"], "power.off is dangerous"),
        ([*sh("true"), "--and", "power.off"], "power.off is dangerous"),
        ([*sh("true"), *["--then", *sh("cat")] * 6], "7 calls never run at a time: user_running_max is 6"),
        ([*sh("true"), *["--then", *sh("cat")] * 7], "length <= 7"),
    ):
        done = await claw(*arguments)
        assert (done.code, done.stdout) == (125, "")
        assert words in done.stderr
    assert (await claw("power.off", "--yes")).stdout == "harm\n"


async def test_who_stops_reading_ends_it(begin: Begin, isolator: Isolator) -> None:
    reading, writing = os.pipe()
    process = await begin(*sh("yes"), stdout=writing)
    os.close(writing)
    assert await asyncio.to_thread(os.read, reading, 2) == b"y\n"
    os.close(reading)
    assert await asyncio.wait_for(process.wait(), 20) == 141
    assert isolator.status()["running"] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
async def test_who_ends_claw_ends_the_calls(
    begin: Begin, isolator: Isolator, number: signal.Signals, code: int
) -> None:
    process = await begin(*sh("echo ready; sleep 1041"), "--and", *sh("sleep 1042"))
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"0 shell.run: ready\n"
    assert isolator.status()["running"] == 2
    process.send_signal(number)
    await process.communicate()
    assert process.returncode == code
    async with asyncio.timeout(10):
        while isolator.status()["running"]:  # noqa: ASYNC110 # places have no event
            await asyncio.sleep(0.02)
