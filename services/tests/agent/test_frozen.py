"""A frozen session makes no call, over restarts too, until an administrator thaws it."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from agent.conftest import MakeWorld, World
from agent.fakes import FakeInference, FakeIsolator, Script, tool_call
from conftest import error_name

from clawos.agent.config import ROOM
from clawos.core.errors import RemoteError
from clawos.core.stream import read_json_lines

CallAs = Callable[..., Awaitable[dict[str, Any]]]
SINGLE_SHOT = "clawos-tags-1"
WHY = "reverse-shell: it became a shell"


async def execute(world: World, session: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        await world.client.call("Exec", session, '{"command":"id"}', fds=(nothing,))
    finally:
        os.close(nothing)


def model(calls: int = 1) -> FakeInference:
    return FakeInference([[tool_call("time.now")] for _ in range(calls)], SINGLE_SHOT)


async def test_it_asks_executes_and_approves_nothing(make_world: MakeWorld) -> None:
    world = await make_world(model())
    session = await world.client.open()
    await world.service.freeze(session, WHY)
    for member, argument in (
        ("Ask", json.dumps({"text": "time"})),
        ("Approve", json.dumps({"call": "x", "decision": "yes"})),
    ):
        with pytest.raises(RemoteError) as refused:
            await world.client.call(member, session, argument)
        assert error_name(refused) == "SessionFrozen"
        assert WHY in refused.value.message
        assert f"claw session thaw {session}" in refused.value.hint
    with pytest.raises(RemoteError) as refused:
        await execute(world, session)
    assert error_name(refused) == "SessionFrozen"
    assert world.sandbox.ran == []


async def test_thawed_it_goes_on(make_world: MakeWorld) -> None:
    world = await make_world(model())
    session = await world.client.open()
    await world.service.freeze(session, WHY)
    await world.service.thaw(session)
    events = await world.client.ask("time")
    assert events[-1]["status"] == "done"
    assert len(world.sandbox.ran) == 1


async def test_what_is_under_way_ends(make_world: MakeWorld) -> None:
    world = await make_world(model(), FakeIsolator([Script([b"x"], hang=True)]))
    session = await world.client.open()
    seen = []
    async for event in read_json_lines(await world.client.start("time")):
        seen.append(event)
        if event["type"] == "tool_output":
            await world.service.freeze(session, WHY)
    assert seen[-1]["status"] == "interrupted"
    assert world.sandbox.killed


async def test_another_session_of_the_user_goes_on(make_world: MakeWorld) -> None:
    world = await make_world(model())
    await world.service.freeze(await world.client.open(), WHY)
    await world.client.open(name="other")
    assert (await world.client.ask("time"))[-1]["status"] == "done"


async def test_it_outlives_a_restart(make_world: MakeWorld) -> None:
    world = await make_world()
    session = await world.client.open()
    await world.service.freeze(session, WHY)
    await world.stop()
    again = await make_world(model())
    assert await again.client.open() == session
    with pytest.raises(RemoteError) as refused:
        await again.client.ask("time")
    assert error_name(refused) == "SessionFrozen"
    assert await again.service.frozen() == [{"session": session, "user": 8, "name": "default", "reason": WHY}]
    await again.service.thaw(session)
    assert await again.service.frozen() == []


async def test_a_session_that_is_not_there_is_an_error(make_world: MakeWorld, call_as: CallAs) -> None:
    await make_world()
    for member in (("Freeze", "nobody", "why"), ("Thaw", "nobody")):
        answer = await call_as("root", ROOM.bus_name, *member)
        assert answer["error"] == "org.clawos.Error.NoSuchSession"


async def test_who_may_freeze_and_thaw(make_world: MakeWorld, call_as: CallAs) -> None:
    world = await make_world()
    session = await world.client.open()
    denied = "org.freedesktop.DBus.Error.AccessDenied"
    for member in (("Freeze", session, "why"), ("Thaw", session), ("Frozen",)):
        with pytest.raises(RemoteError) as refused:
            await world.client.call(*member)
        assert refused.value.error_name == denied, member
        assert (await call_as("clawos-sandbox", ROOM.bus_name, *member))["error"] == denied
    assert (await call_as("clawos-monitor", ROOM.bus_name, "Thaw", session))["error"] == denied
    assert (await call_as("clawos-monitor", ROOM.bus_name, "Status"))["error"] == denied
    assert await call_as("clawos-monitor", ROOM.bus_name, "Freeze", session, WHY) == {"ok": []}
    (frozen,) = (await call_as("root", ROOM.bus_name, "Frozen"))["ok"]
    assert json.loads(frozen)[0]["reason"] == WHY
    assert await call_as("root", ROOM.bus_name, "Thaw", session) == {"ok": []}
    (frozen,) = (await call_as("root", ROOM.bus_name, "Frozen"))["ok"]
    assert json.loads(frozen) == []


async def test_a_call_says_which_session_it_is_of(make_world: MakeWorld) -> None:
    world = await make_world(model())
    session = await world.client.open()
    await world.client.ask("time")
    await execute(world, session)
    assert [ran.spec["session"] for ran in world.sandbox.ran] == [session, session]
