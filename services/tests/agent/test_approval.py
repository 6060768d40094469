"""Approvals and cancelling, over the real private bus."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agent.conftest import Client, MakeWorld
from agent.fakes import HANG, SINGLE_SHOT, FakeInference, FakeIsolator, Script, text, tool_call
from conftest import error_name

from clawos.agent import turn
from clawos.agent.config import AgentConfig
from clawos.agent.events import ToolResult
from clawos.agent.interface import BusPeer
from clawos.core.errors import RemoteError
from clawos.core.stream import StreamClosed, read_json_lines


async def _answering(
    client: Client, request: str, decision: str | None, **options: Any
) -> list[dict[str, Any]]:
    """A turn in which every question gets this answer."""
    events = []
    fd = await client.start(request, interactive=True, **options)
    async with asyncio.timeout(20):
        async for event in read_json_lines(fd):
            events.append(event)
            if event["type"] == "approval_required" and decision is not None:
                await client.approve(event["call"], decision)
    return events


def _asked(events: list[dict[str, Any]]) -> list[str]:
    return [e["summary"] for e in events if e["type"] == "approval_required"]


async def _next(events: AsyncIterator[dict[str, Any]], kind: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        async for event in events:
            if event["type"] == kind:
                return event
    raise AssertionError(f"no {kind} came")


async def _status(events: AsyncIterator[dict[str, Any]]) -> str:
    return str((await _next(events, "done"))["status"])


async def test_yes_runs_the_call_once(make_world: MakeWorld) -> None:
    script = [tool_call("file.delete", path="a\u202egpj.txt")]
    world = await make_world(FakeInference([script, script], SINGLE_SHOT))
    events = await _answering(world.client, "delete it", "yes")
    assert _asked(events) == ['file.delete path="a\\u202egpj.txt"']
    assert [e["state"] for e in events if e["type"] == "state"] == [
        "thinking",
        "paused",
        "calling_tool",
        "idle",
    ]
    assert events[-1]["status"] == "done"
    assert len(_asked(await _answering(world.client, "delete it", "no"))) == 1
    assert len(world.sandbox.ran) == 1


async def test_no_ends_the_turn_and_runs_nothing(make_world: MakeWorld) -> None:
    calls = [tool_call("file.delete", path="a"), tool_call("time.now")]
    world = await make_world(FakeInference([calls]))
    events = await _answering(world.client, "delete a and tell the time", "no")
    assert events[-1]["status"] == "refused"
    assert world.sandbox.ran == []
    assert [(m["role"], m.get("state")) for m in await world.client.history()][2:] == [
        ("tool", "refused"),
        ("tool", "refused"),
    ]


async def test_always_for_a_cautious_tool_covers_the_tool(make_world: MakeWorld) -> None:
    writes = [[tool_call("file.write", path=p, text="x")] for p in "ab"]
    world = await make_world(FakeInference(writes, SINGLE_SHOT))
    assert len(_asked(await _answering(world.client, "write a", "always"))) == 1
    assert _asked(await _answering(world.client, "write b", None)) == []
    assert len(world.sandbox.ran) == 2


async def test_always_for_a_dangerous_tool_covers_these_arguments_only(make_world: MakeWorld) -> None:
    deletes = [[tool_call("file.delete", path=p)] for p in "aab"]
    world = await make_world(FakeInference(deletes, SINGLE_SHOT))
    assert len(_asked(await _answering(world.client, "delete a", "always"))) == 1
    assert _asked(await _answering(world.client, "delete a", None)) == []
    assert len(_asked(await _answering(world.client, "delete b", "no"))) == 1
    assert [ran.spec["argv"][-1] for ran in world.sandbox.ran] == ["a", "a"]


async def test_always_is_of_one_session(make_world: MakeWorld) -> None:
    writes = [[tool_call("file.write", path="a", text="x")]] * 2
    world = await make_world(FakeInference(writes, SINGLE_SHOT))
    await _answering(world.client, "write a", "always")
    await world.client.open(name="second")
    assert len(_asked(await _answering(world.client, "write a", "no"))) == 1


async def test_always_is_of_one_connection(make_world: MakeWorld) -> None:
    deletes = [[tool_call("file.delete", path="a")]] * 5
    world = await make_world(FakeInference(deletes, SINGLE_SHOT))
    first, second = await world.other("mail"), await world.other("mail")
    assert await first.open() == await second.open()
    assert len(_asked(await _answering(first, "delete a", "always"))) == 1
    assert _asked(await _answering(first, "delete a", None)) == []
    assert len(_asked(await _answering(second, "delete a", "no"))) == 1
    assert (await second.ask("delete a"))[-1]["status"] == "approval_needed"
    # Neither its own no nor the other's question took anything from the first.
    assert _asked(await _answering(first, "delete a", None)) == []
    assert len(world.sandbox.ran) == 3


async def test_always_ends_with_the_connection(make_world: MakeWorld) -> None:
    writes = [[tool_call("file.write", path="a", text="x")]] * 3
    world = await make_world(FakeInference(writes, SINGLE_SHOT))
    leaver = await world.other("mail")
    session = await leaver.open()
    assert len(_asked(await _answering(leaver, "write a", "always"))) == 1
    await leaver.bus.close()
    comer = await world.other("mail")
    assert await comer.open() == session
    assert len(_asked(await _answering(comer, "write a", "always"))) == 1
    assert _asked(await _answering(comer, "write a", None)) == []
    # Nothing is kept of those who left, however many come and go.
    assert set(world.service._sessions[session]._approvals) == {comer.bus._connection.unique_name}


async def test_always_is_of_who_said_it_and_not_of_who_asked(make_world: MakeWorld) -> None:
    writes = [[tool_call("file.write", path="a", text="x")]] * 3
    world = await make_world(FakeInference(writes, SINGLE_SHOT))
    asker, other = await world.other("mail"), await world.other("mail")
    assert await asker.open() == await other.open()
    events = read_json_lines(await asker.start("write a", interactive=True))
    await other.approve((await _next(events, "approval_required"))["call"], "always")
    assert await _status(events) == "done"
    assert len(_asked(await _answering(asker, "write a", "no"))) == 1
    assert _asked(await _answering(other, "write a", None)) == []


async def test_nobody_to_ask(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("unit.restart", unit="nginx")]], SINGLE_SHOT))
    events = await world.client.ask("restart nginx")
    assert _asked(events) == ['unit.restart unit="nginx"']
    assert events[-1]["status"] == "approval_needed"
    assert world.sandbox.ran == []


async def test_nobody_answers(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[tool_call("file.delete", path="a")]]), config=AgentConfig(approval_timeout_s=0.2)
    )
    events = await _answering(world.client, "delete a", None)
    assert events[-1]["status"] == "timed_out"
    assert world.sandbox.ran == []


async def test_thinking_about_an_answer_costs_no_turn_time(make_world: MakeWorld) -> None:
    model = FakeInference([[tool_call("file.delete", path="a")]], SINGLE_SHOT)
    world = await make_world(model, config=AgentConfig(turn_timeout_s=0.5))
    events = read_json_lines(await world.client.start("delete a", interactive=True))
    call = (await _next(events, "approval_required"))["call"]
    await asyncio.sleep(0.8)
    await world.client.approve(call, "yes")
    assert await _status(events) == "done"


async def test_an_answer_must_name_the_call_that_waits(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.delete", path="a")]]))
    await world.client.open()
    with pytest.raises(RemoteError) as error:
        await world.client.approve("x", "yes")
    assert error_name(error) == "BadRequest"
    events = read_json_lines(await world.client.start("delete a", interactive=True))
    call = (await _next(events, "approval_required"))["call"]
    for wrong in (("x", "yes"), (call, "perhaps")):
        with pytest.raises(RemoteError) as error:
            await world.client.approve(*wrong)
        assert error_name(error) == "BadRequest"
    await world.client.approve(call, "no")
    assert await _status(events) == "refused"


async def test_cancel_while_the_model_speaks(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[text("I thi"), HANG], [text("ok")]]))
    events = read_json_lines(await world.client.start("think"))
    await _next(events, "text")
    await world.client.call("Cancel", world.client.session)
    assert await _status(events) == "interrupted"
    assert world.model.cancelled == ["g1"]
    assert (await world.client.history())[-1]["content"] == "I thi"
    assert (await world.client.ask("again"))[-1]["status"] == "done"


async def test_cancel_while_a_tool_runs_kills_the_sandbox(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[tool_call("time.now")], [text("ok")]]), FakeIsolator([Script([b"half"], hang=True)])
    )
    events = read_json_lines(await world.client.start("time"))
    await _next(events, "tool_output")
    await world.client.call("Cancel", world.client.session)
    assert await _status(events) == "interrupted"
    assert world.sandbox.killed == ["r1"]
    assert (await world.client.history())[-1]["state"] == "interrupted"
    await world.client.ask("again")
    # The conversation stayed whole: the call that was cancelled has a result in the model's eyes.
    assert [m["role"] for m in world.model.requests[1]["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "user",
    ]


async def test_cancel_while_an_approval_is_awaited(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.delete", path="a")]]))
    events = read_json_lines(await world.client.start("delete a", interactive=True))
    call = (await _next(events, "approval_required"))["call"]
    await world.client.call("Cancel", world.client.session)
    assert await _status(events) == "interrupted"
    with pytest.raises(RemoteError):
        await world.client.approve(call, "yes")
    assert world.sandbox.ran == []


async def test_reader_that_goes_away_cancels(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("time.now")]]), FakeIsolator([Script(hang=True)]))
    events = read_json_lines(await world.client.start("time"))
    async for event in events:
        if event.get("state") == "calling_tool":
            await asyncio.wait_for(world.sandbox.started.wait(), 10)
            break
    await events.aclose()  # type: ignore[attr-defined] # it is a generator
    # By a Cancel or, if the isolator's reply was still under way, by its streams being closed.
    await asyncio.wait_for(world.sandbox.over.wait(), 10)


class _Leaver:
    """A reader that goes away just as a call's result is told to it."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def send_json(self, value: Any) -> None:
        if isinstance(value, ToolResult):
            self.gone.set()
        if self.gone.is_set():
            raise StreamClosed("gone")

    async def close(self) -> None:
        self.gone.set()


async def test_call_that_ran_is_recorded_though_its_reader_has_left(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("time.now"), tool_call("host.name")]], SINGLE_SHOT))
    session = world.service._sessions[await world.client.open()]
    peer = BusPeer(session.user.uid, ":1.0", world.buses[0])
    await turn.Turn(session, peer, turn.AskRequest(text="time"), _Leaver(), world.service._kit).run()
    assert [(m["role"], m.get("state")) for m in await world.client.history()] == [
        ("user", None),
        ("assistant", None),
        ("tool", "done"),
        ("tool", "interrupted"),
    ]
    assert len(world.sandbox.ran) == 1


async def test_caller_that_leaves_the_bus_cancels(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[text("hm"), HANG]]))
    leaver = await world.other("mail")
    events = read_json_lines(await leaver.start("think"))
    await _next(events, "text")
    await leaver.bus.close()
    assert await _status(events) == "interrupted"
    assert world.model.cancelled == ["g1"]


async def test_stopping_the_service_ends_turns_in_order(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[text("hm"), HANG]]))
    events = read_json_lines(await world.client.start("think"))
    await _next(events, "text")
    await world.service.close()
    seen = [event async for event in events]
    assert [(e.get("state"), e.get("status")) for e in seen] == [("shutdown", None), (None, "interrupted")]


async def test_reader_that_stands_still_holds_nobody_up(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "FAREWELL_S", 0.2)
    world = await make_world(
        FakeInference([[tool_call("time.now")]]),
        FakeIsolator([Script([b"x" * 60_000] * 20)]),
        config=AgentConfig(turn_timeout_s=0.5),
    )
    unread = await world.client.start("time")
    await asyncio.wait_for(world.sandbox.cancelled.wait(), 10)
    (status,) = await world.client.call("Status")
    assert json.loads(status)["sessions"] == 1
    os.close(unread)


async def _edited(
    client: Client, args: dict[str, Any], decision: str = "yes"
) -> tuple[list[dict[str, Any]], list[str]]:
    """A turn whose question is answered with other arguments, or as asked where those are refused."""
    events: list[dict[str, Any]] = []
    refused: list[str] = []
    fd = await client.start("delete it", interactive=True)
    async with asyncio.timeout(20):
        async for event in read_json_lines(fd):
            events.append(event)
            if event["type"] != "approval_required":
                continue
            try:
                await client.approve(event["call"], decision, args)
            except RemoteError as error:
                refused.append(error.error_name.rpartition(".")[2])
                await client.approve(event["call"], decision)
    return events, refused


async def test_a_call_runs_with_the_arguments_that_the_user_gave_it(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.delete", path="a.txt")]], SINGLE_SHOT))
    events, _ = await _edited(world.client, {"path": "b.txt"})
    announced = [e["args"]["path"] for e in events if e["type"] == "tool_call"]
    assert announced == ["a.txt", "b.txt"]
    assert [ran.spec["argv"][-1] for ran in world.sandbox.ran] == ["b.txt"]
    history = await world.client.history()
    assert [m["tool_calls"] for m in history if "tool_calls" in m] == [
        [{"tool": "file.delete", "args": {"path": "b.txt"}}]
    ]
    assert [m["edited_from"] for m in history if "edited_from" in m] == [{"path": "a.txt"}]


async def test_what_the_user_changed_is_what_the_model_reads_later(make_world: MakeWorld) -> None:
    calls = [tool_call("time.now"), tool_call("file.delete", path="a.txt")]
    inference = FakeInference([calls, [text("ok")]])
    world = await make_world(inference)
    await _edited(world.client, {"path": "b.txt"})
    read = inference.requests[-1]["messages"]
    assert [c["args"] for m in read for c in m.get("tool_calls", ())] == [{}, {"path": "b.txt"}]


async def test_arguments_of_the_users_are_checked_as_a_models_are(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.delete", path="a.txt")]], SINGLE_SHOT))
    for wrong in ({"path": ""}, {"path": 3}, {}, {"path": "x", "force": True}):
        world.model.script = [[tool_call("file.delete", path="a.txt")]]
        events, refused = await _edited(world.client, wrong)
        assert refused == ["ArgumentsInvalid"]
        assert events[-1]["status"] == "done"
    assert {ran.spec["argv"][-1] for ran in world.sandbox.ran} == {"a.txt"}


async def test_always_covers_what_ran_and_not_what_was_asked(make_world: MakeWorld) -> None:
    script = [tool_call("file.delete", path="a.txt")]
    world = await make_world(FakeInference([script, script], SINGLE_SHOT))
    await _edited(world.client, {"path": "b.txt"}, "always")
    assert len(_asked(await _answering(world.client, "delete it", "no"))) == 1


async def test_the_question_in_words_comes_from_the_manifest(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.delete", path="a.txt")]], SINGLE_SHOT))
    events = await _answering(world.client, "delete it", "no")
    assert [e["asks"] for e in events if e["type"] == "approval_required"] == ["delete {path}"]
