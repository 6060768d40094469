"""The built-in model's dialect through the whole service: with random weights, and with the real model."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import error_name
from inference import tinymodel
from inference.conftest import TOOLS, MakeRoom

from clawos.core.errors import ClawError
from clawos.inference.builtin.prompt import DIALECT
from clawos.inference.chat import ChatRequest, Message
from clawos.inference.engine import Job

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[3]
REAL = REPOSITORY / "qa" / "model" / "builtin.gguf"


def catalogue() -> list[dict[str, Any]]:
    """The tools of the image, as the agent names them."""
    manifests = [tomllib.loads(p.read_text()) for p in sorted(REPOSITORY.glob("policies/tools/*.toml"))]
    return [
        {
            "name": m["name"],
            "description": m["description"],
            "parameters": m["arguments"],
            "verbs": m.get("verbs", []),
        }
        for m in manifests
    ]


LABELS = ["-", "no", "file.read", "memory.usage", "file.read lines", "talk:hello"]
TAGS = ["O", "B-path", "I-path", "B-number", "I-number"]


@pytest.fixture
def random_tagger(tmp_path: Path) -> Path:
    """Reads as the built-in model does, with random weights."""
    return tinymodel.write_tagger(tmp_path / "tagger.gguf", LABELS, TAGS)


async def test_random_weights_stay_within_the_tools_and_the_guard(
    make_room: MakeRoom, random_tagger: Path
) -> None:
    room = await make_room(random_tagger)
    for request in ("how much memory is free?", "show /etc/hosts", "read the first 5 lines of notes.txt"):
        events = await room.chat(request, tools=TOOLS)
        assert [event for event in events if event["type"] == "error"] == []
        assert events[-1]["finish"] in ("stop", "tool_calls")
        for event in events:
            if event["type"] == "tool_call" and event["tool"] == "file.read":
                assert event["args"]["path"] in request
    assert (await room.status())["dialect"] == DIALECT


async def test_a_request_longer_than_the_context_is_cut(make_room: MakeRoom, random_tagger: Path) -> None:
    room = await make_room(random_tagger)
    events = await room.chat("show " + "a/" * 5000, tools=TOOLS)
    assert events[-1]["prompt_tokens"] <= 64
    assert events[-1]["type"] == "done"


async def test_a_chat_is_cancelled_before_it_reads(make_room: MakeRoom, random_tagger: Path) -> None:
    room = await make_room(random_tagger)
    job = Job(ChatRequest(messages=[Message(role="user", content="hello")]))
    job.cancel()
    engine = room.service._engine
    await engine.load("builtin", random_tagger)
    assert (await engine.generate(job, lambda event: None, 0)).finish == "cancelled"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clawos.labels", ["-", "no"]),
        ("clawos.tags", []),
        ("clawos.head.calls", [0.5]),
        ("clawos.head.tags", [float("nan")] * 5 * 33),
    ],
)
async def test_heads_that_do_not_fit_are_refused(
    make_room: MakeRoom, tmp_path: Path, key: str, value: list[Any]
) -> None:
    path = tinymodel.write_tagger(tmp_path / "bad.gguf", LABELS, TAGS, metadata={key: value})
    room = await make_room(path)
    with pytest.raises(ClawError) as error:
        await room.chat("hello")
    assert error_name(error) == "ModelInvalid"
    assert "does not fit" in error.value.message


async def test_an_answer_without_tools_calls_none(make_room: MakeRoom, random_tagger: Path) -> None:
    room = await make_room(random_tagger)
    events = await room.chat("hello")
    assert {event["type"] for event in events} <= {"text", "done"}


async def test_a_bad_schema_is_refused_before_the_model_is_touched(
    make_room: MakeRoom, random_tagger: Path
) -> None:
    room = await make_room(random_tagger)
    with pytest.raises(ClawError) as error:
        await room.chat(tools=[{"name": "x", "parameters": {"type": "array"}}])
    assert error_name(error) == "GrammarInvalid"
    assert (await room.status())["loaded"] is False


async def test_an_unknown_dialect_of_ours_is_refused(make_room: MakeRoom, tmp_path: Path) -> None:
    path = tinymodel.write(tmp_path / "new.gguf", metadata={"clawos.dialect": "clawos-tags-99"})
    room = await make_room(path)
    with pytest.raises(ClawError) as error:
        await room.chat()
    assert error_name(error) == "ModelInvalid"
    assert "clawos-tags-99" in error.value.message


async def test_the_real_model_turns_a_request_into_a_call(make_room: MakeRoom) -> None:
    room = await make_room(REAL)
    events = await room.chat("how much memory is free?", tools=catalogue())
    assert [(e["tool"], e["args"]) for e in events if e["type"] == "tool_call"] == [("memory.usage", {})]
    done = events[-1]
    assert done["finish"] == "tool_calls"
    assert done["prompt_tokens"] > 3


async def test_the_real_model_leans_on_the_request_before(make_room: MakeRoom) -> None:
    room = await make_room(REAL)
    messages = [
        {"role": "user", "content": "is nginx running?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"tool": "unit.status", "args": {"unit": "nginx"}}],
        },
        {"role": "tool", "tool": "unit.status", "content": "nginx.service is running."},
        {"role": "user", "content": "restart it"},
    ]
    events = await room.chat(messages=messages, tools=catalogue())
    assert [(e["tool"], e["args"]) for e in events if e["type"] == "tool_call"] == [
        ("unit.restart", {"unit": "nginx"})
    ]


async def test_the_real_model_has_nothing_to_add_to_results(make_room: MakeRoom) -> None:
    room = await make_room(REAL)
    messages = [
        {"role": "user", "content": "how much memory is free?"},
        {"role": "assistant", "content": "", "tool_calls": [{"tool": "memory.usage", "args": {}}]},
        {"role": "tool", "tool": "memory.usage", "content": "3 GB"},
    ]
    assert [event["type"] for event in await room.chat(messages=messages, tools=catalogue())] == ["done"]
