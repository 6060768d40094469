"""A hundred calls at once: all of them run, in turn; and past the queue's limit the caller is told so by name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from qa.conftest import isolator_status
from qa.system.test_sandbox import leftovers
from qa.vm.machine import Output

Run = Callable[..., Output]

PROGRAM = """
import asyncio, json, os, sys
from clawos.core.bus import Bus
from clawos.core.errors import ClawError

def read(fd):
    with os.fdopen(fd, "rb") as stream:
        return stream.read().decode()

async def call(bus, number, argv):
    spec = {"tool": "test.many", "argv": argv}
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        _, *streams = await bus.call("org.clawos.Isolator1", "Run", json.dumps(spec), fds=(nothing,))
    except ClawError as error:
        return {"number": number, "refused": error.name, "limit": error.fields.get("limit")}
    finally:
        os.close(nothing)
    started.append(number)
    out, _, result = await asyncio.gather(*(asyncio.to_thread(read, fd) for fd in streams))
    return {"number": number, "stdout": out, **json.loads(result)}

async def main(count, *argv):
    bus = await Bus.connect()
    ran = await asyncio.gather(*(call(bus, n, [*argv, str(n)]) for n in range(count)))
    print(json.dumps({"started": started, "ran": ran}))
    await bus.close()

started = []
asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
"""


def at_once(root: Run, count: int, *argv: str) -> dict[str, Any]:
    done = root(
        f"python3 -I - {count} {shlex.join(argv)} <<'END OF PROGRAM'\n{PROGRAM}\nEND OF PROGRAM\n", 600
    )
    assert done.status == 0, done.stderr
    told: dict[str, Any] = json.loads(done.text)
    return told


@pytest.fixture
def _spare(root: Run) -> None:
    assert isolator_status(root)["running"] == isolator_status(root)["queued"] == 0


@pytest.mark.usefixtures("_spare")
def test_a_hundred_calls_at_once_run_in_turn(root: Run) -> None:
    told = at_once(root, 100, "/usr/bin/echo")
    assert [one["stdout"] for one in told["ran"]] == [f"{n}\n" for n in range(100)]
    assert {one["limit"] for one in told["ran"]} == {None}
    places = {number: place for place, number in enumerate(told["started"])}
    assert max(abs(place - number) for number, place in places.items()) < 16, "nobody is overtaken for long"
    assert leftovers(root) == ""


@pytest.mark.usefixtures("_spare")
def test_past_the_queues_limit_the_caller_is_told(root: Run) -> None:
    told = at_once(root, 180, "/bin/sh", "-c", "sleep 1")
    refused = [one for one in told["ran"] if "refused" in one]
    assert {(one["refused"], one["limit"]) for one in refused} == {
        ("org.clawos.Error.Busy", "user_queued_max")
    }
    most = 180 - 6 - 128  # of one user six run and 128 wait, while none has ended
    assert most // 2 < len(refused) <= most
    assert {one["exit_code"] for one in told["ran"] if one not in refused} == {0}
    assert isolator_status(root)["queued"] == 0
    assert leftovers(root) == ""
