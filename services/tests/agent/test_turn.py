"""Turns over the real private bus: the agent between a scripted model and a scripted isolator."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from agent.conftest import MakeWorld
from agent.fakes import DIE, HANG, SINGLE_SHOT, FakeInference, FakeIsolator, Script, text, tool_call
from conftest import error_name

from clawos.agent.config import AgentConfig
from clawos.core.errors import Busy, ClawError, RemoteError
from clawos.core.stream import read_json_lines


class ContextFull(ClawError):
    name = "ContextFull"


class SandboxRefused(ClawError):
    name = "SandboxRefused"


def of_type(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def states(events: list[dict[str, Any]]) -> list[str]:
    return [event["state"] for event in of_type(events, "state")]


async def test_text_only_answer(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[text("Good "), text("evening.")]]))
    events = await world.client.ask("hello")
    assert "".join(e["text"] for e in of_type(events, "text")) == "Good evening."
    assert states(events) == ["thinking", "streaming", "idle"]
    assert events[-1]["type"] == "done"
    assert (events[-1]["status"], events[-1]["model"]) == ("done", "fake")
    assert (events[-1]["prompt_tokens"], events[-1]["completion_tokens"]) == (10, 5)
    assert len({event["turn"] for event in events}) == 1
    assert [(m["role"], m["content"]) for m in await world.client.history()] == [
        ("user", "hello"),
        ("assistant", "Good evening."),
    ]


async def test_built_in_model_ends_with_the_results_of_its_calls(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[tool_call("memory.usage"), tool_call("time.now")]], dialect=SINGLE_SHOT),
        FakeIsolator([Script([b"free 1 GB\n"]), Script([b"noon\n"])]),
    )
    events = await world.client.ask("how much memory is free and what time is it?")
    assert [e["tool"] for e in of_type(events, "tool_call")] == ["memory.usage", "time.now"]
    assert [(e["ok"], e["output"]) for e in of_type(events, "tool_result")] == [
        (True, "free 1 GB\n"),
        (True, "noon\n"),
    ]
    assert events[-1]["status"] == "done"
    assert len(world.model.requests) == 1


async def test_other_models_see_the_result_and_answer(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[text("Let me look."), tool_call("memory.usage")], [text("1 GB is free.")]]),
        FakeIsolator([Script([b"free 1 GB\n"])]),
    )
    events = await world.client.ask("how much memory is free?")
    assert states(events) == ["thinking", "streaming", "calling_tool", "thinking", "streaming", "idle"]
    system, *second = world.model.requests[1]["messages"]
    assert system["role"] == "system"
    assert second == [
        {"role": "user", "content": "how much memory is free?"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"tool": "memory.usage", "args": {}}],
        },
        {"role": "tool", "content": "free 1 GB\n", "tool": "memory.usage"},
    ]
    assert {t["name"] for t in world.model.requests[0]["tools"]} >= {"memory.usage", "shell.run"}
    assert events[-1]["prompt_tokens"] == 20


async def test_sandbox_is_asked_for_exactly_what_the_manifest_permits(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.read", path="-n a.txt", lines=3)]], SINGLE_SHOT))
    await world.client.ask("show 3 lines of the file")
    (ran,) = world.sandbox.ran
    assert ran.spec == {
        "tool": "file.read",
        "argv": ["/usr/lib/clawos/tools/show-file", "-n a.txt", "3"],
        "runtime": "native",
        "env": {},
        "stdin": False,
        "cwd": "/home/mail",
        "home": "read",
        "home_owner": 8,
        "read": ["/etc", "/var/log"],
        "sockets": [],
        "groups": [],
        "host_proc": False,
        "network": "none",
        "run_as": "clawos-sandbox",
        "quota": "small",
        "seccomp": "shell",
        "session": world.client.session,
    }


async def test_call_without_a_home_starts_at_the_root(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("time.now")]], SINGLE_SHOT))
    await world.client.ask("time")
    (ran,) = world.sandbox.ran
    assert (ran.spec["home"], ran.spec["home_owner"], ran.spec["cwd"]) == ("none", 8, "/")


async def test_output_arrives_while_the_tool_runs(make_world: MakeWorld) -> None:
    gate = asyncio.Event()
    world = await make_world(
        FakeInference([[tool_call("time.now")]], SINGLE_SHOT),
        FakeIsolator([Script([b"one", b"two"], gate=gate)]),
    )
    seen = []
    async for event in read_json_lines(await world.client.start("time")):
        if event["type"] == "tool_output":
            seen.append(event["text"])
            gate.set()
    assert seen == ["one", "two"]


async def test_bytes_that_are_not_utf8_are_replaced(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[tool_call("time.now")]], SINGLE_SHOT),
        FakeIsolator([Script([b"a\xff\xc3"], [b"\xa9!"])]),
    )
    (result,) = of_type(await world.client.ask("time"), "tool_result")
    assert "a\ufffd" in result["output"]
    assert result["output"].endswith("!")


async def test_long_output_is_kept_in_part_and_shown_whole(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[tool_call("time.now")], [text("Long.")]]),
        FakeIsolator([Script(["äöü".encode() * 10_000])]),
        config=AgentConfig(output_keep_bytes=1001),
    )
    events = await world.client.ask("time")
    assert sum(len(e["text"]) for e in of_type(events, "tool_output")) == 30_000
    (result,) = of_type(events, "tool_result")
    assert result["truncated"] is True
    assert len(result["output"].encode()) == 1000
    assert world.model.requests[1]["messages"][-1]["content"].endswith("cut here]")


async def test_failed_tool_is_told_to_user_and_model(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[tool_call("time.now")], [text("It failed.")]]),
        FakeIsolator([Script(stderr=[b"no clock\n"], exit_code=3)]),
    )
    events = await world.client.ask("time")
    (result,) = of_type(events, "tool_result")
    assert (result["ok"], result["exit_code"], result["output"]) == (False, 3, "no clock\n")
    assert world.model.requests[1]["messages"][-1]["content"] == "no clock\n\n[exit status 3]"
    assert events[-1]["status"] == "done"


async def test_failed_tool_of_the_built_in_model_fails_the_turn(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[tool_call("time.now")]], SINGLE_SHOT),
        FakeIsolator([Script(exit_code=None, signal=9, limit="wall")]),
    )
    events = await world.client.ask("time")
    (result,) = of_type(events, "tool_result")
    assert (result["ok"], result["signal"], result["limit"]) == (False, 9, "wall")
    assert events[-1]["status"] == "failed"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (tool_call("no.such"), "ToolUnknown"),
        (tool_call("file.read"), "ArgumentsInvalid"),
        (tool_call("file.read", path="a", lines=0), "ArgumentsInvalid"),
        (tool_call("file.read", path="a", mode="x"), "ArgumentsInvalid"),
        (tool_call("file.read", path="a\0b"), "ArgumentsInvalid"),
        (tool_call("unit.stop", unit="a\n"), "ArgumentsInvalid"),
    ],
)
async def test_invalid_call_never_runs(make_world: MakeWorld, call: dict[str, Any], name: str) -> None:
    world = await make_world(FakeInference([[call], [text("Sorry.")]]))
    events = await world.client.ask("do it", interactive=True)
    (error,) = of_type(events, "error")
    assert error["name"] == f"org.clawos.Error.{name}"
    assert world.sandbox.ran == []
    assert world.model.requests[1]["messages"][-1]["content"].startswith("[invalid call:")
    assert events[-1]["status"] == "done"


async def test_plan_announces_and_runs_nothing(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("file.delete", path="a"), tool_call("time.now")]]))
    events = await world.client.ask("delete a, then the time", plan=True)
    assert [e["summary"] for e in of_type(events, "tool_call")] == ['file.delete path="a"', "time.now"]
    assert events[-1]["status"] == "planned"
    assert world.sandbox.ran == []
    assert (await world.client.history())[-1]["content"].startswith("[planned, not run] file.delete")


async def test_model_that_never_stops_calling_is_stopped(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[tool_call("time.now")]] * 3), config=AgentConfig(max_steps=3))
    events = await world.client.ask("time")
    assert of_type(events, "error")[0]["name"] == "org.clawos.Error.StepLimit"
    assert states(events)[-2:] == ["error", "idle"]
    assert (events[-1]["status"], len(world.sandbox.ran)) == ("failed", 3)


async def test_turn_has_a_wall_clock(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[text("hm"), HANG]]), config=AgentConfig(turn_timeout_s=0.3))
    events = await world.client.ask("think")
    assert events[-1]["status"] == "timed_out"
    assert world.model.cancelled == ["g1"]
    assert (await world.client.history())[-1]["content"] == "hm"


async def test_error_of_a_service_keeps_its_name(make_world: MakeWorld) -> None:
    world = await make_world(
        FakeInference([[tool_call("time.now")]]),
        FakeIsolator([SandboxRefused("step seccomp failed", "see the log")]),
    )
    events = await world.client.ask("time")
    (error,) = of_type(events, "error")
    assert (error["name"], error["message"], error["hint"]) == (
        "org.clawos.Error.SandboxRefused",
        "step seccomp failed",
        "see the log",
    )
    assert events[-1]["status"] == "failed"
    assert [m["role"] for m in await world.client.history()] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("room", ["inference", "isolator"])
async def test_service_that_dies_midway_is_named(make_world: MakeWorld, room: str) -> None:
    script = [text("I am"), DIE] if room == "inference" else [tool_call("time.now")]
    world = await make_world(FakeInference([script]), FakeIsolator([Script([b"x"], dies=True)]))
    events = await world.client.ask("time")
    (error,) = of_type(events, "error")
    assert error["name"] == "org.clawos.Error.Unavailable"
    assert f"clawos-{room}" in error["hint"]
    assert events[-1]["status"] == "failed"


async def test_full_context_is_asked_again_with_the_newest_turn_only(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[text("one")], ContextFull("too long"), [text("two")]]))
    await world.client.ask("first")
    events = await world.client.ask("second")
    assert events[-1]["status"] == "done"
    assert [m["content"] for m in world.model.requests[2]["messages"][1:]] == ["second"]


async def test_one_turn_a_session(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[text("hm"), HANG]]))
    events = read_json_lines(await world.client.start("think"))
    async for event in events:
        if event["type"] == "text":
            break
    with pytest.raises(RemoteError) as error:
        await world.client.start("again")
    assert error.value.is_a(Busy)
    await events.aclose()  # type: ignore[attr-defined] # it is a generator
    await asyncio.wait_for(world.model.ended.wait(), 10)


@pytest.mark.parametrize(
    "request_", ["{}", '{"text":"  "}', '{"text":"x","mode":1}', "no json", '{"text":1}']
)
async def test_bad_request_is_refused(make_world: MakeWorld, request_: str) -> None:
    world = await make_world()
    session = await world.client.open()
    with pytest.raises(RemoteError) as error:
        await world.client.call("Ask", session, request_)
    assert error_name(error) == "BadRequest"


async def test_exec_passes_the_streams_through(make_world: MakeWorld) -> None:
    world = await make_world(sandbox=FakeIsolator([Script([b"out"], [b"err"], exit_code=7)]))
    session = await world.client.open()
    stdin, feed = os.pipe()
    os.write(feed, b"input")
    os.close(feed)
    command = "-x; echo 'a b' | cat"
    _, *fds = await world.client.call("Exec", session, json.dumps({"command": command}), fds=(stdin,))
    os.close(stdin)
    out, err, result = [await asyncio.to_thread(_read_all, fd) for fd in fds]
    assert (out, err, json.loads(result)["exit_code"]) == (b"out", b"err", 7)
    (ran,) = world.sandbox.ran
    assert ran.spec["argv"][-1] == command
    assert ran.spec["argv"][-2] == "--"
    assert (ran.spec["stdin"], ran.stdin, ran.spec["home"]) == (True, b"input", "write")
    assert world.model.requests == []
    # It is written down in the background; a read after it in the store's one thread sees it.
    assert [(m["role"], m["content"]) for m in await world.client.history()] == [("exec", command)]


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as f:
        return f.read()


async def test_cancel_ends_commands_too(make_world: MakeWorld) -> None:
    world = await make_world(sandbox=FakeIsolator([Script(hang=True)]))
    session = await world.client.open()
    with open("/dev/null", "rb") as nothing:  # noqa: ASYNC230
        _, *fds = await world.client.call("Exec", session, '{"command":"sleep 9"}', fds=(nothing.fileno(),))
    for fd in fds[:2]:
        os.close(fd)
    await world.client.call("Cancel", session)
    assert json.loads(await asyncio.to_thread(_read_all, fds[2]))["limit"] == "cancelled"
    assert world.sandbox.killed == ["r1"]
