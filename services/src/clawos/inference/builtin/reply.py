"""From what the model made of a request to calls that may be carried out, or to what is said instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clawos.inference.builtin import ground, schema, words
from clawos.inference.builtin.assign import Draft, assign
from clawos.inference.builtin.labels import (
    ABOUT,
    LEAVE,
    NO,
    NONE,
    TALK,
    WHEN,
    CallLabel,
    is_call,
)
from clawos.inference.builtin.reading import Call, Reading, Request, Span
from clawos.inference.builtin.tool import ToolSpec

Kind = Literal["calls", "ask", "decline", "talk"]
# What stands before a value in a command that somebody typed as a request: head -n20, --unit=cron.
_OPTION = re.compile(r"^(?:-n?(?=[0-9])|--[a-z]+=|/etc/init\.d/)")
_FLAGS = ("-n", "-u", "-c", "-e", "-p")
SURE = 0.85
"""Below this certainty the model asks instead. Chosen on the requests of eval/ that are not called unseen."""
MOST = 6
"""Calls that one request may lead to, counting one for each of several names."""


@dataclass(frozen=True)
class Reply:
    """What the request leads to: calls, or a text. `rejected` says what the guard refused, and why."""

    kind: Kind
    calls: tuple[Call, ...] = ()
    text: str = ""
    rejected: tuple[str, ...] = ()


class _Refusal(Exception):
    def __init__(self, reason: str, say: str, kind: Kind = "ask") -> None:
        super().__init__(reason)
        self.say, self.kind = say, kind


def parse(reading: Reading, request: Request, tools: Sequence[ToolSpec]) -> Reply:
    """Make the calls of a reading. One call that the guard refuses refuses them all."""
    by_name = {tool.name: tool for tool in tools}
    head = reading.labels[0]
    if head == LEAVE:
        return Reply("decline", (), words.leave())
    if head == WHEN:
        return Reply("ask", (), words.condition())
    if head in (NO, NONE):
        return Reply("decline", (), words.decline())
    if head.startswith(TALK):
        return Reply("talk", (), words.talk(head.removeprefix(TALK), tools))
    if head.startswith(ABOUT):
        tool = by_name.get(head.removeprefix(ABOUT))
        return Reply("talk", (), words.about(tool)) if tool else Reply("decline", (), words.decline())
    if reading.certainty < SURE and not request.confirmed:
        named = [CallLabel.parse(label).tool for label in reading.labels]
        said = words.unsure([by_name[name] for name in named if name in by_name])
        return Reply("ask", (), said, (f"certain only to {reading.certainty:.2f}",))
    try:
        return Reply("calls", tuple(_calls(reading, request, by_name)))
    except _Refusal as refusal:
        return Reply(refusal.kind, (), refusal.say, (str(refusal),))


def _calls(reading: Reading, request: Request, by_name: dict[str, ToolSpec]) -> list[Call]:
    drafts = []
    for name in reading.labels:
        if name == NONE:
            break
        label = CallLabel.parse(name)
        if not is_call(name) or label.tool not in by_name:
            raise _Refusal(f"{name}: no such call", words.decline(), "decline")
        drafts.append(Draft(label, by_name[label.tool]))
    found = [span for span in reading.spans if request.text[span.start : span.end] not in _FLAGS]
    drafts = assign(drafts, found, request.earlier)
    if len(drafts) > MOST:
        raise _Refusal(f"more than {MOST} calls", words.decline(), "decline")
    calls: list[Call] = []
    for draft in drafts:
        call = _call(draft, request)
        if call not in calls:
            calls.append(call)
    return calls


def _call(draft: Draft, request: Request) -> Call:
    tool = draft.tool
    reason = ground.asked_for(tool.verbs, request.text)
    if reason == ground.NO_VERB and any(call.tool == tool.name for call in request.earlier):
        reason = ""  # "and redis": the verb is that of the request before
    if reason:
        forbidden = reason == ground.FORBIDDEN
        say = words.leave() if forbidden else words.confirm(tool)
        raise _Refusal(f"{tool.name}: {reason}", say, "decline" if forbidden else "ask")
    arguments: dict[str, Any] = {}
    for key in tool.properties:
        if key in draft.label.fixed:
            arguments[key] = draft.label.fixed[key]
        elif key in draft.said:
            arguments[key] = _value(tool, key, draft.said[key], request.text)
        elif key in draft.inherited:
            arguments[key] = draft.inherited[key]
        elif key in draft.label.inherited:
            raise _Refusal(f"{tool.name}: {key} is missing", words.question(tool, key))
    wrong = schema.problem(tool, arguments)
    if wrong:
        raise _Refusal(f"{tool.name}: {wrong[0]} {wrong[1]}", words.question(tool, wrong[0]))
    return Call(tool.name, arguments)


def _value(tool: ToolSpec, key: str, span: Span, text: str) -> Any:
    """An argument from the words of its span."""
    start, end = ground.whole(text, span.start, span.end)
    said = text[start:end]
    value: Any = said
    if tool.properties[key].get("type") in ("integer", "number"):
        value = words.number(_OPTION.sub("", said))
    elif key == "expression":
        value = words.arithmetic(said)
    elif span.slot == "name.suffix":
        value = f"*.{said.lstrip('.*')}"
    elif span.slot == "name.part":
        value = f"*{said}*"
    elif key == "unit":
        said = _OPTION.sub("", said)
        # systemd tells NGINX from nginx; who begins a sentence with a name does not.
        value = said.lower() if said in (said.upper(), said.capitalize()) else said
    if value is None:
        raise _Refusal(f"{tool.name}: {key} {said!r} makes no sense", words.question(tool, key))
    return value
