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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile

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


def decide(shares: Sequence[Mapping[str, float]]) -> tuple[tuple[str, ...], float]:
    """The labels of a request from the probabilities of each place, and how certain they are.

    The certainty is that of what they lead to: labels that do the same count together. The least of the
    places is that of the whole.
    """
    chosen = [max(place, key=place.__getitem__) for place in shares]
    labels = (chosen[0], *takewhile(lambda label: label != NONE, chosen[1:]))
    certainty = 1.0
    for at, (label, place) in enumerate(zip(labels, shares, strict=False)):
        # What was named before is done once, or once for each of its values, however often it is named.
        named = {_does(earlier) for earlier in labels[:at]}
        same = {_does(NONE), *named} if _does(label) in named else {_does(label)}
        certainty = min(certainty, sum(share for other, share in place.items() if _does(other) in same))
    return labels, certainty


@cache
def _does(label: str) -> tuple[object, ...]:
    """What a label leads to: it, without the optional values that the tags of the words tell as well."""
    if not is_call(label):
        return (label,)
    call = CallLabel.parse(label)
    return (call.tool, *sorted(call.fixed.items()), *sorted(call.inherited))
