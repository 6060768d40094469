"""Whose sessions are whose, and what of them outlives the service."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from agent.conftest import MakeWorld
from agent.fakes import FakeInference, text, tool_call
from conftest import error_name

from clawos.agent import service
from clawos.agent.config import ROOM, AgentConfig
from clawos.core.errors import RemoteError

CallAs = Callable[..., Awaitable[dict[str, Any]]]


async def test_same_name_and_user_continue(make_world: MakeWorld) -> None:
    world = await make_world()
    first = await world.client.open()
    assert await world.client.open(name="default") == first
    assert await world.client.open(name="work") != first
    other = await world.other("games")
    assert await other.open() != first


async def test_fresh_session_takes_the_name_and_forgets(make_world: MakeWorld) -> None:
    world = await make_world(FakeInference([[text("one")], [text("two")]]))
    first = await world.client.open()
    await world.client.ask("remember me")
    second = await world.client.open(fresh=True)
    assert second != first
    assert await world.client.open() == second
    await world.client.ask("who am I?")
    assert [m["content"] for m in world.model.requests[1]["messages"][1:]] == ["who am I?"]


async def test_two_that_open_at_once_share_one_session(make_world: MakeWorld) -> None:
    world = await make_world()
    opened = await asyncio.gather(*(world.client.call("OpenSession", "{}") for _ in range(8)))
    assert len({session for (session,) in opened}) == 1


@pytest.mark.parametrize(
    ("member", "arguments"),
    [
        ("Ask", ['{"text":"x"}']),
        ("Approve", ['{"call":"x","decision":"yes"}']),
        ("Cancel", []),
        ("History", []),
    ],
)
async def test_session_of_another_user_does_not_exist(
    make_world: MakeWorld, member: str, arguments: list[str]
) -> None:
    world = await make_world()
    session = await world.client.open()
    other = await world.other("games")
    for unknown in (session, "0" * 16, "' OR 1"):
        with pytest.raises(RemoteError) as error:
            await other.call(member, unknown, *arguments)
        assert error_name(error) == "NoSuchSession"
        assert error.value.message == "you have no such session"


async def test_exec_in_the_session_of_another_user_does_not_happen(make_world: MakeWorld) -> None:
    world = await make_world()
    session = await world.client.open()
    other = await world.other("games")
    with open("/dev/null", "rb") as nothing, pytest.raises(RemoteError) as error:  # noqa: ASYNC230
        await other.call("Exec", session, '{"command":"id"}', fds=(nothing.fileno(),))
    assert error_name(error) == "NoSuchSession"
    assert world.sandbox.ran == []


@pytest.mark.parametrize("command", ["", " \n", "a\0b", "x" * 131_072])
async def test_command_that_cannot_be_one_is_refused(make_world: MakeWorld, command: str) -> None:
    world = await make_world()
    session = await world.client.open()
    with open("/dev/null", "rb") as nothing, pytest.raises(RemoteError) as error:  # noqa: ASYNC230
        await world.client.call("Exec", session, json.dumps({"command": command}), fds=(nothing.fileno(),))
    assert error_name(error) == "BadRequest"


async def test_conversation_goes_on_after_a_restart(make_world: MakeWorld) -> None:
    first = await make_world(FakeInference([[tool_call("time.now")], [text("noon")]]))
    session = await first.client.open()
    await first.client.ask("time?")
    await first.stop()
    second = await make_world(FakeInference([[text("yes")]]))
    second.client.session = session
    assert [m["role"] for m in await second.client.history()] == ["user", "assistant", "tool", "assistant"]
    await second.client.ask("still noon?")
    assert [m["content"] for m in second.model.requests[0]["messages"][1:]] == [
        "time?",
        "",
        "/usr/bin/date +%A %d %B %Y, %H:%M:%S %Z\n",
        "noon",
        "still noon?",
    ]


async def test_full_disk_fails_turns_but_not_commands(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = await make_world(FakeInference([[text("one")], [text("two")]]))
    await world.client.ask("fits")

    def limit(pages: str) -> None:
        world.store._db.execute(f"PRAGMA max_page_count={pages}")

    await world.store._in_thread(lambda: limit("1"))  # no fewer than there are: every growth is refused
    events = await world.client.ask("x" * 50_000)
    (error,) = [e for e in events if e["type"] == "error"]
    assert error["name"] == "org.clawos.Error.Internal"
    assert "full" not in error["message"] + error["hint"]
    assert events[-1]["status"] == "failed"
    assert "database or disk is full" in caplog.text
    with open("/dev/null", "rb") as nothing:  # noqa: ASYNC230
        _, *fds = await world.client.call(
            "Exec", world.client.session, '{"command":"df"}', fds=(nothing.fileno(),)
        )
    for fd in fds:
        os.close(fd)
    assert [ran.spec["argv"][-1] for ran in world.sandbox.ran] == ["df"]
    await world.store._in_thread(lambda: limit("100000"))
    assert (await world.client.ask("again"))[-1]["status"] == "done"
    assert [m["content"] for m in world.model.requests[-1]["messages"][1:]] == ["fits", "one", "again"]


async def test_history_is_cut_to_what_one_message_holds(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(FakeInference([[text(str(n))] for n in range(4)]))
    for n in range(4):
        await world.client.ask(f"question {n} " + "x" * 1000)
    monkeypatch.setattr(service, "MAX_HISTORY_BYTES", 2450)
    assert [m["content"][:10] for m in await world.client.history()] == [
        "question 2",
        "2",
        "question 3",
        "3",
    ]


async def test_sessions_are_limited(make_world: MakeWorld) -> None:
    world = await make_world(config=AgentConfig(sessions_per_user=2))
    await world.client.open(name="a")
    await world.client.open(name="b")
    with pytest.raises(RemoteError) as error:
        await world.client.open(name="c")
    assert error_name(error) == "Busy"
    await world.client.open(name="b", fresh=True)
    await (await world.other("games")).open(name="c")


@pytest.mark.parametrize("options", ['{"name":"a b"}', '{"name":""}', '{"name":"a\\n"}', '{"x":1}', "[]"])
async def test_bad_options_are_refused(make_world: MakeWorld, options: str) -> None:
    world = await make_world()
    with pytest.raises(RemoteError) as error:
        await world.client.call("OpenSession", options)
    assert error_name(error) == "BadRequest"


async def test_status_counts_and_names_nobody(make_world: MakeWorld) -> None:
    world = await make_world()
    await world.client.open(name="secret-project")
    (text_,) = await world.client.call("Status")
    status = json.loads(text_)
    assert (status["sessions"], status["states"], status["tools_invalid"]) == (1, {"idle": 1}, [])
    assert status["tools"] == len(world.registry)
    assert "secret" not in text_


async def test_tools_are_listed_with_their_class(make_world: MakeWorld) -> None:
    world = await make_world()
    (listed,) = await world.client.call("Tools")
    tools = {tool["name"]: tool for tool in json.loads(listed)}
    assert tools["file.delete"]["class"] == "dangerous"
    assert tools["file.delete"]["parameters"]["properties"]["path"]["type"] == "string"
    assert "delete" in tools["file.delete"]["verbs"]


async def test_who_may_call(make_world: MakeWorld, call_as: CallAs) -> None:
    await make_world()
    denied = await call_as("nobody", ROOM.bus_name, "Status")
    assert denied["error"] == "org.freedesktop.DBus.Error.AccessDenied"
    assert "ok" in await call_as("root", ROOM.bus_name, "Status")


async def test_member_of_the_group_may_call_and_others_may_not(make_world: MakeWorld) -> None:
    world = await make_world()
    await (await world.other("games", "clawos")).call("Status")
    with pytest.raises(RemoteError) as error:
        await (await world.other("games", "audio")).call("Status")
    assert error.value.error_name == "org.freedesktop.DBus.Error.AccessDenied"


async def test_only_its_user_may_own_the_name(make_world: MakeWorld, connect_as: Any) -> None:
    world = await make_world()
    bus = await connect_as("games", "clawos")
    with pytest.raises(RemoteError) as error:
        await bus._call_daemon("RequestName", "su", ROOM.bus_name, 4)
    assert error.value.error_name == "org.freedesktop.DBus.Error.AccessDenied"
    assert world.registry
