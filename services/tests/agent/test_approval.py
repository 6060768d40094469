"""Approvals and cancelling, over the real private bus."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agent.conftest import TOOLS, Client, MakeWorld
from agent.fakes import HANG, SINGLE_SHOT, FakeInference, FakeIsolator, Script, text, tool_call
from conftest import error_name

from clawos.agent import turn
from clawos.agent.config import AgentConfig
from clawos.agent.events import ToolResult
from clawos.agent.interface import BusPeer
from clawos.core.errors import RemoteError
from clawos.core.stream import StreamClosed, read_json_lines


async def _answering(
    client: Client, request: str, decision: str | None, edited: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """A turn in which every question gets this answer."""
    more = {} if edited is None else {"args": edited}
    events = []
    fd = await client.start(request, interactive=True)
    async with asyncio.timeout(20):
        async for event in read_json_lines(fd):
            events.append(event)
            if event["type"] == "approval_required" and decision is not None:
                await client.approve(event["call"], decision, **more)
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


async def test_the_question_brings_the_words_of_the_manifest(make_world: MakeWorld) -> None:
    script = [tool_call("file.write", path="a", text="x")]
    world = await make_world(FakeInference([script], SINGLE_SHOT))
    events = await _answering(world.client, "write x to a", "no")
    assert [e.get("asks") for e in events if "call" in e] == [None, "write {text} to {path}"]


async def test_an_edited_call_runs_as_edited_and_is_kept_both_ways(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "clawos.agent.calling")
    script = [tool_call("file.write", path="a", text="secret")]
    world = await make_world(FakeInference([script, [text("ok")]], SINGLE_SHOT))
    events = await _answering(world.client, "write it", "yes", edited={"path": "b", "text": "secret"})
    assert [ran.spec["argv"][1:] for ran in world.sandbox.ran] == [["b", "secret"]]
    told = [(e["type"], e.get("args", {}).get("path")) for e in events if e.get("tool")]
    assert told == [
        ("tool_call", "a"),
        ("approval_required", "a"),
        ("call_edited", "b"),
        ("tool_result", None),
    ]
    history = await world.client.history()
    assert history[1]["tool_calls"][0]["args"] == {"path": "a", "text": "secret"}
    assert history[2]["edited"] == {"path": "b", "text": "secret"}
    assert (history[2]["state"], history[2]["exit_code"]) == ("done", 0)
    # The model that is asked next hears of it as well.
    assert 'the user edited this call before it ran: file.write path="b"' in history[2]["content"]
    await world.client.ask("again")
    assert world.model.requests[1]["messages"][3]["content"] == history[2]["content"]
    (record,) = [r for r in caplog.records if hasattr(r, "CLAWOS_DECISION")]
    assert (record.__dict__["CLAWOS_DECISION"], record.__dict__["CLAWOS_EDITED"]) == ("yes", "path")
    assert "edited path and said yes" in record.getMessage()
    assert "secret" not in str(record.__dict__)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"unit": "a b"}, "unit must match pattern"),
        ({"unit": "../x"}, "unit must match pattern"),
        ({"unit": 7}, "unit must be string"),
        ({"unit": "dbus", "force": True}, "must not contain {'force'} properties"),
        ({}, "must contain ['unit'] properties"),
    ],
)
async def test_edited_arguments_must_fit_and_the_call_waits_on(
    make_world: MakeWorld, args: dict[str, Any], words: str
) -> None:
    world = await make_world(FakeInference([[tool_call("unit.restart", unit="nginx")]], SINGLE_SHOT))
    events = read_json_lines(await world.client.start("restart it", interactive=True))
    call = (await _next(events, "approval_required"))["call"]
    for decision in ("yes", "always"):
        with pytest.raises(RemoteError) as error:
            await world.client.approve(call, decision, args=args)
        assert error_name(error) == "ArgumentsInvalid"
        assert words in error.value.message
    await world.client.approve(call, "yes", args={"unit": "dbus"})
    assert await _status(events) == "done"
    assert [ran.spec["argv"][-1] for ran in world.sandbox.ran] == ["dbus"]


async def test_a_value_that_no_command_line_holds_is_refused(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.delete", path="a")]], SINGLE_SHOT))
    events = read_json_lines(await world.client.start("delete a", interactive=True))
    call = (await _next(events, "approval_required"))["call"]
    with pytest.raises(RemoteError) as error:
        await world.client.approve(call, "yes", args={"path": "a\0b"})
    assert error_name(error) == "ArgumentsInvalid"
    await world.client.approve(call, "no")
    assert await _status(events) == "refused"
    assert "edited" not in (await world.client.history())[-1]


async def test_an_answer_cannot_change_the_tool_nor_edit_what_it_refuses(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.delete", path="a")]], SINGLE_SHOT))
    events = read_json_lines(await world.client.start("delete a", interactive=True))
    call = (await _next(events, "approval_required"))["call"]
    for decision, more in (("yes", {"tool": "time.now"}), ("no", {"args": {"path": "b"}})):
        with pytest.raises(RemoteError) as error:
            await world.client.approve(call, decision, **more)
        assert error_name(error) == "BadRequest"
    await world.client.approve(call, "yes", args={"path": "a"})
    assert await _status(events) == "done"
    # The same values are no edit.
    assert "edited" not in (await world.client.history())[-1]


async def test_always_with_edited_arguments_covers_what_ran(make_world: MakeWorld) -> None:
    deletes = [[tool_call("file.delete", path=p)] for p in "aba"]
    world = await make_world(FakeInference(deletes, SINGLE_SHOT))
    assert len(_asked(await _answering(world.client, "delete a", "always", edited={"path": "b"}))) == 1
    assert _asked(await _answering(world.client, "delete b", None)) == []
    assert len(_asked(await _answering(world.client, "delete a", "no"))) == 1
    assert [ran.spec["argv"][-1] for ran in world.sandbox.ran] == ["b", "b"]


async def test_editing_is_by_the_manifest_that_was_asked_with(make_world: MakeWorld, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    file = tools / "file.delete.toml"
    file.write_text((TOOLS / file.name).read_text())
    world = await make_world(
        FakeInference([[tool_call("file.delete", path="a")]], SINGLE_SHOT), tools=(tools,)
    )
    events = read_json_lines(await world.client.start("delete a", interactive=True))
    call = (await _next(events, "approval_required"))["call"]
    file.write_text(file.read_text().replace("/usr/bin/rm", "/usr/bin/shred"))
    world.registry.load()
    await world.client.approve(call, "yes", args={"path": "b"})
    assert await _status(events) == "done"
    (ran,) = world.sandbox.ran
    assert ran.spec["argv"] == ["/usr/lib/clawos/tools/expand-home", "/usr/bin/rm", "--", "b"]


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


async def test_a_request_that_leans_on_an_edited_call_means_what_ran(make_world: MakeWorld) -> None:
    calls = [tool_call("time.now"), tool_call("file.delete", path="a.txt")]
    world = await make_world(FakeInference([calls, [text("ok")], [text("ok")]]))
    fd = await world.client.start("delete it", interactive=True)
    async with asyncio.timeout(20):
        async for event in read_json_lines(fd):
            if event["type"] == "approval_required":
                answer = {"call": event["call"], "decision": "yes", "args": {"path": "b.txt"}}
                await world.client.call("Approve", world.client.session, json.dumps(answer))
    asked = [c["args"] for m in world.model.requests[-1]["messages"] for c in m.get("tool_calls", ())]
    assert asked == [{}, {"path": "b.txt"}]
    # The same after a restart, when it is read from the store.
    read = await world.store.messages(world.client.session, 10)
    assert [c.args for m in read for c in m.tool_calls] == [{}, {"path": "b.txt"}]
