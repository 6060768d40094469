"""What the model made of a request: labels of the whole, and the values it found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from clawos.inference.builtin.labels import OUTSIDE
from clawos.inference.builtin.split import Word


class Span(NamedTuple):
    """A value: its slot, and where it stands in the request."""

    slot: str
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """Labels of the calls in their order, and spans in the order of the request."""

    labels: tuple[str, ...]
    spans: tuple[Span, ...]
    certainty: float = 1.0
    """The smallest probability that the model gives one of the labels."""


@dataclass(frozen=True)
class Call:
    """One tool call whose arguments are valid and stand in the request, or in the one before."""

    tool: str
    arguments: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Request:
    """What somebody asks: the words, and what the same conversation held right before."""

    text: str
    before: str = ""
    earlier: tuple[Call, ...] = ()
    confirmed: bool = False
    """Whether the user has said yes to what we were not sure of."""


def spans(words: Sequence[Word], tags: Sequence[str]) -> tuple[Span, ...]:
    """The chunks that the tags of the words mark. An `I-` that continues nothing begins a chunk."""
    found: list[Span] = []
    current = OUTSIDE
    for word, tag in zip(words, tags, strict=True):
        place, _, slot = tag.partition("-")
        if place == "I" and slot == current:
            found[-1] = found[-1]._replace(end=word.end)
        elif place in ("B", "I"):
            found.append(Span(slot, word.start, word.end))
        current = slot if place in ("B", "I") else OUTSIDE
    return tuple(found)
