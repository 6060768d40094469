"""From what the model wrote to calls that may be carried out, or to what is said instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clawos.inference.builtin import ground, schema, words
from clawos.inference.builtin.dialect import ABOUT, ASK, CALLS, LEAVE, NO, PART, SUFFIX, TALK, plain
from clawos.inference.builtin.tool import ToolSpec, wants_pattern

Kind = Literal["calls", "ask", "decline", "talk"]
_PIECE = re.compile(r"⟨([^⟨⟩]*)⟩([^⟨⟩]*)")


@dataclass(frozen=True)
class Call:
    """One tool call whose arguments are valid and stand in the request."""

    tool: str
    arguments: Mapping[str, Any] = field(hash=False)


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


def parse(output: str, request: str, tools: Sequence[ToolSpec]) -> Reply:
    """Expand the model's output for this request. One call that the guard refuses refuses them all."""
    by_name = {tool.name: tool for tool in tools}
    request = plain(request)
    output = output.split("⟨end⟩")[0]
    pieces = [(f"⟨{match[1]}⟩", match[2]) for match in _PIECE.finditer(output)]
    if not pieces:
        said = output.strip()
        return (
            Reply("talk")
            if not said
            else Reply("decline", (), words.decline(), (f"not in the dialect: {said[:60]}",))
        )
    head, rest = pieces[0]
    if head == LEAVE:
        return Reply("decline", (), words.leave())
    if head == TALK:
        return Reply("talk", (), words.talk(rest.strip(), tools))
    if head in (ABOUT, ASK):
        return _about_or_ask(head, [name for name, _ in pieces[1:]], by_name)
    if head == NO:
        return Reply("decline", (), words.decline())
    try:
        return Reply("calls", tuple(_calls(pieces, by_name, request)))
    except _Refusal as refusal:
        return Reply(refusal.kind, (), refusal.say, (str(refusal),))


def _about_or_ask(head: str, names: list[str], by_name: Mapping[str, ToolSpec]) -> Reply:
    tool = by_name.get(names[0].strip("⟨⟩")) if names else None
    if tool is None:
        return Reply("decline", (), words.decline(), ("no such tool",))
    if head == ABOUT:
        return Reply("talk", (), words.about(tool))
    slot = names[1].strip("⟨⟩") if len(names) > 1 else tool.first_slot
    return Reply("ask", (), words.question(tool, slot or "request"))


def _calls(pieces: list[tuple[str, str]], by_name: Mapping[str, ToolSpec], request: str) -> list[Call]:
    grouped: list[tuple[ToolSpec, list[tuple[str, str]]]] = []
    for name, value in pieces:
        tool = by_name.get(name[1:-1])
        if tool is not None:
            grouped.append((tool, []))
        elif grouped:
            grouped[-1][1].append((name, value))
        else:
            raise _Refusal(f"{name[1:-1]}: no such tool", words.decline(), "decline")
    if len(grouped) > CALLS:
        raise _Refusal(f"more than {CALLS} calls", words.decline(), "decline")
    calls: list[Call] = []
    for tool, slots in grouped:
        call = _call(tool, slots, request)
        if call not in calls:
            calls.append(call)
    return calls


def _call(tool: ToolSpec, slots: list[tuple[str, str]], request: str) -> Call:
    reason = ground.asked_for(tool.verbs, request)
    if reason:
        say = words.leave() if reason.endswith("not to") else words.confirm(tool)
        raise _Refusal(f"{tool.name}: {reason}", say, "decline" if reason.endswith("not to") else "ask")
    arguments: dict[str, Any] = {}
    for key, value, affix in _arguments(tool, slots):
        arguments[key] = _value(tool, key, value.strip(), affix, request)
    wrong = schema.problem(tool, arguments)
    if wrong:
        raise _Refusal(f"{tool.name}: {wrong[0]} {wrong[1]}", words.question(tool, wrong[0]))
    return Call(tool.name, arguments)


def _arguments(tool: ToolSpec, slots: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Each argument's name, its value as written, and the pattern mark between them, if there is one."""
    waiting = ""
    for at, (name, value) in enumerate(slots):
        if name in (SUFFIX, PART):
            if not waiting:
                raise _Refusal(f"{tool.name}: misplaced pattern mark", words.decline(), "decline")
            yield waiting, value, name
            waiting = ""
        elif not value and at + 1 < len(slots) and slots[at + 1][0] in (SUFFIX, PART):
            waiting = name[1:-1]
        else:
            yield name[1:-1], value, ""


def _value(tool: ToolSpec, key: str, said: str, affix: str, request: str) -> Any:
    """One argument from the model's words: enum values as they are, everything else must stand in the
    request.
    """
    spec = tool.properties.get(key)
    if spec is None:
        raise _Refusal(f"{tool.name}: {key} is not an argument of this tool", words.decline(), "decline")
    if "enum" in spec:
        return said
    kind = spec.get("type", "string")
    if kind == "boolean":
        return said == "true"
    number = kind in ("integer", "number")
    found = ground.find(said, request, key=key, number=number, effect=bool(tool.verbs))
    if found is None:
        raise _Refusal(
            f"{tool.name}: {key} {said!r} does not stand in the request", words.question(tool, key)
        )
    if number:
        value = words.number(found)
        if value is None:
            raise _Refusal(f"{tool.name}: {key} {said!r} is not a number", words.question(tool, key))
        return value
    if key == "expression":
        expression = words.arithmetic(found)
        if expression is None:
            raise _Refusal(f"{tool.name}: {said!r} is not arithmetic", words.question(tool, key))
        return expression
    if affix and wants_pattern(spec):
        bare = found.lstrip(".*")
        return f"*.{bare}" if affix == SUFFIX else f"*{found}*"
    if key == "unit" and found in (found.upper(), found.capitalize()):
        return found.lower()  # systemd tells NGINX from nginx; who begins a sentence with a name does not
    return found
