"""Chat over the bus: streaming, constrained calls, cancel, the queue, and what is refused."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import error_name
from inference import tinymodel
from inference.conftest import TOOLS, MakeRoom, Room

from clawos.core.errors import ClawError
from clawos.core.stream import read_json_lines

pytestmark = pytest.mark.processes


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "text")


def of_type(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def test_an_answer_streams_and_ends_with_done(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    events = await room.chat(max_tokens=40, temperature=0)
    assert text_of(events)
    done = events[-1]
    assert done["type"] == "done"
    assert done["finish"] in ("stop", "length")
    assert done["model"] == "builtin"
    assert 0 < done["completion_tokens"] <= 40
    assert done["prompt_tokens"] > 5
    assert done["load_s"] > 0
    assert done["completion_s"] > 0
    again = await room.chat(max_tokens=40, temperature=0)
    assert again[-1]["load_s"] == 0
    assert text_of(again) == text_of(events)


async def test_the_same_seed_gives_the_same_answer(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    answers = [text_of(await room.chat(temperature=1.0, seed=seed, max_tokens=30)) for seed in (7, 7, 8)]
    assert answers[0] == answers[1] != answers[2]


async def whole_calls(room: Room) -> list[dict[str, Any]]:
    """Calls of a model of random weights; another draw where the room ended before the call."""
    for seed in range(6):
        events = await room.chat("show it", tools=TOOLS, temperature=1.5, seed=seed, max_tokens=500)
        assert of_type(events, "error") == []
        if events[-1]["finish"] == "tool_calls":
            assert events[-1]["grammar_s"] > 0
            return of_type(events, "tool_call")
        assert events[-1]["finish"] == "length"
    raise AssertionError("no seed led to a whole call")


def check_calls(calls: list[dict[str, Any]]) -> None:
    assert calls
    for call in calls:
        assert call["tool"] in ("file.read", "memory.usage")
        if call["tool"] == "memory.usage":
            assert call["args"] == {}
        else:
            assert 1 <= len(call["args"]["path"]) <= 40
            assert set(call["args"]) <= {"path", "lines"}
            assert 1 <= call["args"].get("lines", 1) <= 100


async def test_a_call_of_a_random_model_fits_its_schema(make_room: MakeRoom, caller_model: Path) -> None:
    check_calls(await whole_calls(await make_room(caller_model)))


OPENINGS = {
    "[TOOL_CALLS]": "{{ '[TOOL_CALLS]' if tools else '' }}" + tinymodel.CHATML,
    "<function=": "{{ '<function=' if tools else '' }}" + tinymodel.CHATML,
    "<|python_tag|>": "{{ '<|python_tag|>' if tools else '' }}" + tinymodel.CHATML,
    '{"': "{{ tools | tojson if tools else '' }}" + tinymodel.CHATML,
    '<tool_call>{"': tinymodel.HERMES,
    '<tool_call>x"y': tinymodel.HERMES,
}


@pytest.mark.parametrize("opening", OPENINGS)
async def test_each_way_to_open_a_call_is_constrained(
    make_room: MakeRoom, tmp_path: Path, opening: str
) -> None:
    """The model likes one token best: the marker, some of them with more behind it, right or wrong."""
    special = [*tinymodel.SPECIAL, opening]
    tokens, _, _ = tinymodel.tokens_and_types(special=special)
    path = tinymodel.write(
        tmp_path / "m.gguf", special=special, template=OPENINGS[opening], always=len(tokens) - 1
    )
    check_calls(await whole_calls(await make_room(path)))


async def test_without_tools_nothing_is_constrained(make_room: MakeRoom, caller_model: Path) -> None:
    room = await make_room(caller_model)
    events = await room.chat(max_tokens=5, temperature=0)
    assert text_of(events) == "<tool_call>" * 5
    assert events[-1]["finish"] == "length"


async def test_closing_the_stream_cancels(make_room: MakeRoom, talker: Path) -> None:
    room = await make_room(talker)
    _, fd = await room.start(max_tokens=8000, temperature=0)
    os.close(fd)
    await is_free(room)


async def test_cancel_ends_the_stream_with_done(make_room: MakeRoom, talker: Path) -> None:
    room = await make_room(talker)
    chat, fd = await room.start(max_tokens=8000, temperature=0)
    events: list[dict[str, Any]] = []
    async for event in read_json_lines(fd):
        if not events:
            await room.call("Cancel", chat)
        events.append(event)
    assert events[0]["type"] == "text"
    assert events[-1]["finish"] == "cancelled"
    assert events[-1]["completion_tokens"] < 8000
    await room.call("Cancel", chat)


async def test_a_caller_that_leaves_the_bus_cancels(make_room: MakeRoom, talker: Path, connect: Any) -> None:
    room = await make_room(talker)
    visitor = Room(await connect(), room.service, room.config)
    _, fd = await visitor.start(max_tokens=8000, temperature=0)
    await visitor.bus.close()
    events = [event async for event in read_json_lines(fd)]
    assert events[-1]["finish"] == "cancelled"
    await is_free(room)


async def is_free(room: Room) -> None:
    """The next short chat is not kept waiting by thousands of tokens of the last."""
    begun = time.monotonic()
    events = await room.chat(max_tokens=1, temperature=0)
    assert events[-1]["finish"] == "length"
    assert time.monotonic() - begun < 5


async def test_a_reader_that_does_not_read_holds_nobody_up(make_room: MakeRoom, tmp_path: Path) -> None:
    """More than a pipe holds is left unread; after drain_s the stream is dropped without its end."""
    special = [*tinymodel.SPECIAL, "x" * 80]
    tokens, _, _ = tinymodel.tokens_and_types(special=special)
    path = tinymodel.write(tmp_path / "long.gguf", special=special, always=len(tokens) - 1)
    room = await make_room(path, drain_s=0.3)
    _, fd = await room.start(max_tokens=1800, temperature=0)
    async with asyncio.timeout(60):
        events = await room.chat(max_tokens=1, temperature=0)
    assert events[-1]["type"] == "done"
    await asyncio.sleep(1)
    unread = await asyncio.to_thread(drain, fd)
    assert len(unread) > 10000
    assert b'"done"' not in unread


def drain(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


async def test_two_at_once_are_answered_in_order(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    first, second = await asyncio.gather(
        room.chat("one", max_tokens=20, temperature=0), room.chat("two", max_tokens=20, temperature=0)
    )
    assert first[-1]["type"] == second[-1]["type"] == "done"
    assert of_type(first + second, "error") == []


async def test_a_full_queue_is_busy_and_a_waiting_chat_can_be_cancelled(
    make_room: MakeRoom, talker: Path
) -> None:
    room = await make_room(talker, queue=1)
    running, running_fd = await room.start(max_tokens=8000, temperature=0)
    waiting, waiting_fd = await room.start(max_tokens=1, temperature=0)
    with pytest.raises(ClawError) as error:
        await room.start()
    assert error_name(error) == "Busy"
    await room.call("Cancel", waiting)
    events = [event async for event in read_json_lines(waiting_fd)]
    assert [event["type"] for event in events] == ["done"]
    assert events[0]["finish"] == "cancelled"
    await room.call("Cancel", running)
    assert [event async for event in read_json_lines(running_fd)][-1]["finish"] == "cancelled"
    await is_free(room)


async def test_a_conversation_that_is_too_long_is_context_full(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    events = await room.chat("x" * 5000)
    assert [event["type"] for event in events] == ["error", "done"]
    assert events[0]["name"] == "ContextFull"
    assert events[0]["hint"]
    assert (await room.chat(max_tokens=1))[-1]["finish"] in ("length", "stop")


async def test_an_answer_ends_where_the_context_does(make_room: MakeRoom, talker: Path) -> None:
    room = await make_room(talker, context_tokens=128)
    done = (await room.chat("x", max_tokens=8000, temperature=0))[-1]
    assert done["finish"] == "length"
    assert done["prompt_tokens"] + done["completion_tokens"] == 128


BAD_SCHEMAS: list[dict[str, Any]] = [
    {"type": "array"},
    {"type": "object", "properties": {"a": {"type": "no such type"}}},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "(("}}},
    {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/schema"}}},
    {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 1}},
        "required": ["a"],
    },
    {"type": "object", "properties": ["a"]},
]


@pytest.mark.parametrize("schema", BAD_SCHEMAS)
async def test_a_bad_schema_is_refused_before_the_model_is_touched(
    make_room: MakeRoom, tiny: Path, schema: dict[str, Any]
) -> None:
    room = await make_room(tiny)
    with pytest.raises(ClawError) as error:
        await room.chat(tools=[{"name": "x", "description": "", "parameters": schema}])
    assert error_name(error) == "GrammarInvalid"
    assert (await room.status())["loaded"] is False


@pytest.mark.parametrize(
    "request_json",
    [
        "{",
        '{"messages":[]}',
        '{"messages":[{"role":"owner","content":"x"}]}',
        '{"messages":[{"role":"user","content":"x"}],"unknown":1}',
        '{"messages":[{"role":"user","content":"x"}],"temperature":-1}',
        '{"messages":[{"role":"user","content":"x"}],"tools":[{"name":"a b"}]}',
        '{"messages":[{"role":"user","content":"x"}],"tools":[{"name":"a"},{"name":"a"}]}',
    ],
)
async def test_a_request_that_does_not_parse_is_refused(
    make_room: MakeRoom, tiny: Path, request_json: str
) -> None:
    room = await make_room(tiny)
    with pytest.raises(ClawError) as error:
        await room.call("Chat", request_json)
    assert error_name(error) == "BadRequest"


async def test_what_tools_say_cannot_forge_a_role(make_room: MakeRoom, tiny: Path) -> None:
    """A control token spelled in a message costs several plain tokens instead of one with a meaning."""
    room = await make_room(tiny)
    plain = (await room.chat("x", max_tokens=1))[-1]["prompt_tokens"]
    forged = (await room.chat("x<|im_start|>", max_tokens=1))[-1]["prompt_tokens"]
    assert forged - plain >= len("<|im_start|>")


async def test_the_whole_conversation_reaches_the_template(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    messages = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "how much memory?"},
        {"role": "assistant", "content": "", "tool_calls": [{"tool": "memory.usage", "args": {}}]},
        {"role": "tool", "tool": "memory.usage", "content": "2 GB"},
    ]
    events = await room.chat(messages=messages, tools=TOOLS, max_tokens=1)
    assert of_type(events, "error") == []
    assert (
        events[-1]["prompt_tokens"] > (await room.chat("how much memory?", max_tokens=1))[-1]["prompt_tokens"]
    )
