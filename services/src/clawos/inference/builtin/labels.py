"""The names of what the built-in model tells apart, and their meaning.

A label of a call is the tool, then what is fixed by the words, then its optional arguments: a bare name where
the request holds the value, `^name` where it is the value of the call before:

    journal.show ^unit priority=error      "restart nginx and show its errors": the second call

Required arguments are not named: each call has them. Beside calls there are `no` (no tool does that), `leave`
(the request says not to), `when` (it depends on something, or is for later), `talk:TOPIC`, `about:TOOL` (what
a tool does) and `-` (no further call).

A tag of a word is `B-SLOT`, `I-SLOT` or `O`, as usual for chunks of text (Ramshaw and Marcus 1995). A slot is
an argument's name, with `number` for every integer, and `name.suffix` and `name.part` for a name that is a
pattern in other words ("pdf files").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clawos.inference.builtin.tool import ToolSpec

NONE, NO, LEAVE, WHEN = "-", "no", "leave", "when"
TALK, ABOUT = "talk:", "about:"
TOPICS = ("hello", "who", "help", "thanks", "bye", "wellbeing")
OUTSIDE = "O"
CALLS = 3
"""The most calls that one request leads to."""


@dataclass(frozen=True)
class CallLabel:
    """A label of a call, parsed."""

    tool: str
    fixed: Mapping[str, str] = field(default_factory=dict, hash=False)
    spoken: frozenset[str] = frozenset()
    inherited: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, label: str) -> CallLabel:
        tool, *parts = label.split()
        fixed = dict(part.split("=", 1) for part in parts if "=" in part)
        plain = [part for part in parts if "=" not in part]
        return cls(
            tool,
            fixed,
            frozenset(part for part in plain if not part.startswith("^")),
            frozenset(part[1:] for part in plain if part.startswith("^")),
        )


def call_label(
    tool: ToolSpec, fixed: Mapping[str, str], spoken: Iterable[str], inherited: Iterable[str]
) -> str:
    """The label of a call with these arguments, in the order of the tool's schema."""
    spoken, inherited = set(spoken), set(inherited)
    parts = [tool.name]
    for key in tool.properties:
        if key in fixed:
            parts.append(f"{key}={fixed[key]}")
        elif key in tool.required:
            continue
        elif key in spoken:
            parts.append(key)
        elif key in inherited:
            parts.append(f"^{key}")
    return " ".join(parts)


def is_call(label: str) -> bool:
    """Whether a label is that of a call."""
    return label not in (NONE, NO, LEAVE, WHEN) and not label.startswith((TALK, ABOUT))


def slot_of(tool: ToolSpec, key: str) -> str:
    """The slot that an argument's value is tagged as."""
    return "number" if tool.properties[key].get("type") in ("integer", "number") else key
