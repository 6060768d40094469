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
from clawos.inference import builtin
from clawos.inference.errors import GrammarInvalid
from clawos.inference.model import Model
from clawos.inference.sampling import Gbnf

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[3]
REAL = REPOSITORY / "qa" / "model" / "builtin.gguf"
WORDS = ["⟨user⟩", "⟨act⟩", "⟨done⟩", "⟨end⟩", "⟨ask⟩", "⟨no⟩", "⟨leave⟩", "⟨talk⟩", "⟨about⟩", "⟨*.⟩", "⟨*⟩"]


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


@pytest.fixture
def random_native(tmp_path: Path) -> Path:
    """Speaks the dialect's tokens with random weights."""
    names = ["⟨file.read⟩", "⟨memory.usage⟩", "⟨path⟩", "⟨lines⟩"]
    special = ["<|im_start|>", "<|im_end|>", *WORDS, *names]
    return tinymodel.write(
        tmp_path / "native.gguf",
        template=None,
        special=special,
        metadata={"clawos.dialect": builtin.DIALECT},
    )


async def test_random_weights_stay_within_the_grammar_and_the_guard(
    make_room: MakeRoom, random_native: Path
) -> None:
    room = await make_room(random_native)
    for request in ("how much memory is free?", "show /etc/hosts", "read the first 5 lines of notes.txt"):
        events = await room.chat(request, tools=TOOLS)
        assert [event for event in events if event["type"] == "error"] == []
        done = events[-1]
        assert done["finish"] in ("stop", "tool_calls", "length")
        for event in events:
            if event["type"] == "tool_call" and event["tool"] == "file.read":
                assert event["args"]["path"] in request
    assert (await room.status())["dialect"] == builtin.DIALECT


async def test_an_answer_without_tools_calls_none(make_room: MakeRoom, random_native: Path) -> None:
    room = await make_room(random_native)
    events = await room.chat("hello")
    assert {event["type"] for event in events} <= {"text", "done"}


async def test_a_bad_schema_is_refused_before_the_model_is_touched(
    make_room: MakeRoom, random_native: Path
) -> None:
    room = await make_room(random_native)
    with pytest.raises(ClawError) as error:
        await room.chat(tools=[{"name": "x", "parameters": {"type": "array"}}])
    assert error_name(error) == "GrammarInvalid"
    assert (await room.status())["loaded"] is False


async def test_an_unknown_dialect_of_ours_is_refused(make_room: MakeRoom, tmp_path: Path) -> None:
    path = tinymodel.write(tmp_path / "new.gguf", metadata={"clawos.dialect": "clawos-call-99"})
    room = await make_room(path)
    with pytest.raises(ClawError) as error:
        await room.chat()
    assert error_name(error) == "ModelInvalid"
    assert "clawos-call-99" in error.value.message


BAD_GRAMMARS = {
    "empty": "",
    "zero": 'root ::= "a\0"',
    "open": "root ::= (((",
    "undefined": "root ::= nowhere",
    "no root": 'other ::= "a"',
    "left recursion": 'root ::= root "a"',
    "repetition": 'root ::= "a"{9999999}',
}


@pytest.mark.parametrize("what", BAD_GRAMMARS)
def test_a_bad_grammar_is_named_and_never_used(tiny: Path, what: str) -> None:
    model = Model(tiny, "tiny")
    try:
        with pytest.raises(GrammarInvalid):
            Gbnf(model, BAD_GRAMMARS[what])
    finally:
        model.close()


async def test_the_real_model_turns_a_request_into_a_call(make_room: MakeRoom) -> None:
    room = await make_room(REAL)
    events = await room.chat("how much memory is free?", tools=catalogue())
    assert [(e["tool"], e["args"]) for e in events if e["type"] == "tool_call"] == [("memory.usage", {})]
    done = events[-1]
    assert done["finish"] == "tool_calls"
    assert done["prompt_tokens"] > 3
