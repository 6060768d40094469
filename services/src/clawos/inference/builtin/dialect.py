"""What the model reads and what it may write.

It reads `⟨user⟩ the request in lower case⟨act⟩` and writes one of

    ⟨unit.restart⟩⟨unit⟩ nginx⟨journal.show⟩⟨unit⟩ nginx⟨lines⟩ 50      calls, one after the other
    ⟨ask⟩⟨unit.restart⟩⟨unit⟩                                          an argument is missing
    ⟨no⟩   ⟨leave⟩                                                     cannot do that; was told not to
    ⟨talk⟩ hello   ⟨about⟩⟨unit.restart⟩                               small talk; what a tool does

Each ⟨word⟩ is one token of the vocabulary. A value keeps its leading space, so that it is the same tokens
as in the request: the model copies, it does not spell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from clawos.inference.builtin.tool import ToolSpec, wants_pattern
from clawos.inference.builtin.words import is_question_of_ours

DIALECT = "clawos-call-1"
MAX_TOKENS = 96
STOP: tuple[str, ...] = ("⟨end⟩",)

OPEN = "⟨"
USER, ACT, DONE, END = "⟨user⟩", "⟨act⟩", "⟨done⟩", "⟨end⟩"
ASK, NO, LEAVE, TALK, ABOUT = "⟨ask⟩", "⟨no⟩", "⟨leave⟩", "⟨talk⟩", "⟨about⟩"
SUFFIX, PART = "⟨*.⟩", "⟨*⟩"
TOPICS = ("hello", "who", "help", "thanks", "bye", "wellbeing")

# A request longer than this is not one that a model of this size can answer; it is cut, and the guard then
# refuses whatever was lost.
REQUEST_CHARACTERS = 600
CALLS = 4

_PLAIN = str.maketrans({"⟨": "<", "⟩": ">", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "`": "'"})


def plain(text: str) -> str:
    """The request as the model and the guard see it: one line, straight quotes, none of our own brackets."""
    return re.sub(r"\s+", " ", text.translate(_PLAIN)).strip()


def request(messages: Sequence[Mapping[str, Any]]) -> str:
    """The words that count as the request: the last user message, joined to the one it answers a question
    of ours for.

    "restart the service" — "Which service?" — "nginx" is the request "restart the service: nginx".
    """
    at = _last_user(messages)
    if at is None:
        return ""
    text = plain(str(messages[at].get("content") or ""))
    asked = at >= 2 and messages[at - 1].get("role") == "assistant" and messages[at - 2].get("role") == "user"
    if asked and len(text.split()) <= 4 and is_question_of_ours(str(messages[at - 1].get("content") or "")):
        text = f"{plain(str(messages[at - 2].get('content') or ''))}: {text}"
    return text


def prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text to tokenise, with special tokens parsed. Once the results of its calls are there, nothing
    is left to do.
    """
    text = request(messages)[:REQUEST_CHARACTERS].lower()
    at = _last_user(messages)
    done = at is not None and any(message.get("role") == "tool" for message in messages[at + 1 :])
    return f"{USER} {text}{ACT}{DONE if done else ''}"


def _last_user(messages: Sequence[Mapping[str, Any]]) -> int | None:
    return next((i for i in reversed(range(len(messages))) if messages[i].get("role") == "user"), None)


def token(name: str) -> str:
    """The vocabulary's token for a tool or an argument."""
    return f"{OPEN}{name}⟩"


def grammar(tools: Sequence[ToolSpec]) -> str:
    """GBNF for exactly these tools. It depends on nothing but the tools: build it once and keep it."""
    branches = ['""', _quote(NO), _quote(LEAVE), f"{_quote(TALK + ' ')} topic"]
    rules = [f"topic ::= {_either(TOPICS)}"]
    if tools:
        tool_words = " | ".join(_quote(token(tool.name)) for tool in tools)
        branches += ["call" + " (call" * (CALLS - 1) + ")?" * (CALLS - 1), f"{_quote(ABOUT)} tool"]
        calls = " | ".join(f"call-{i}" for i in range(len(tools)))
        # What all calls begin with stands once: llama.cpp tries each way to go on at each letter of a value.
        rules += [f"call ::= {_quote(OPEN)} ({calls})", f"tool ::= {tool_words}"]
        rules += [f"call-{i} ::= {_call(tool)}" for i, tool in enumerate(tools)]
        slots = [tool for tool in tools if tool.properties]
        if slots:
            branches.append(f"{_quote(ASK)} ({' | '.join(_ask(tool) for tool in slots)})")
    rules += [
        # MAX_TOKENS and the schema's maxLength bound it: a counted repetition costs three times as much.
        'text ::= " " [^⟨⟩\\n]+',
        'number ::= " " ([0-9]{1,6} | [a-z] [a-z -]{2,40})',
        'boolean ::= " true" | " false"',
    ]
    return "\n".join([f"root ::= {' | '.join(branches)}", *rules]) + "\n"


def _call(tool: ToolSpec) -> str:
    parts = [_quote(token(tool.name).removeprefix(OPEN))]
    for key, schema in tool.properties.items():
        part = f"{_quote(token(key))} {_value(schema)}"
        parts.append(part if key in tool.required else f"({part})?")
    return " ".join(parts)


def _value(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f'" " ({_either(str(value) for value in schema["enum"])})'
    kind = schema.get("type", "string")
    if kind in ("integer", "number"):
        return "number"
    if kind == "boolean":
        return "boolean"
    if wants_pattern(schema):
        return f"({_quote(SUFFIX)} | {_quote(PART)})? text"
    return "text?" if kind == "string" and not schema.get("minLength") and "pattern" not in schema else "text"


def _ask(tool: ToolSpec) -> str:
    return f"{_quote(token(tool.name))} ({_either(token(key) for key in tool.properties)})"


def _either(words: Any) -> str:
    return " | ".join(_quote(word) for word in words)


def _quote(text: str) -> str:
    """A GBNF literal; its escapes are JSON's, as long as the characters beyond ASCII stay as they are."""
    return json.dumps(text, ensure_ascii=False)
