"""Which value goes to which call, where a request leads to several or leans on the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clawos.inference.builtin.labels import CallLabel, slot_of
from clawos.inference.builtin.reading import Call, Span
from clawos.inference.builtin.tool import ToolSpec

# "it" after a copy is what the copy made. A service and its program are called alike.
_SAME: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "to"),
    "from": ("path", "to"),
    "to": ("path",),
    "unit": ("unit", "name"),
    "name": ("name", "unit"),
}
# "make a folder a and move b into it": nothing else is a place to put something.
_MAKES_PLACE = "directory.create"
_PATTERNS = (".suffix", ".part")
# A name in one sense reads like a name in another: the label of the call says which is meant.
_ALIKE = ("path", "from", "to", "name", "unit", "host", "zone")
# Of several finds for one of these, the longest is the whole.
_WHOLE = ("text", "command", "expression", "code")


@dataclass
class Draft:
    """A call whose arguments are still places in the request, or values of calls before."""

    label: CallLabel
    tool: ToolSpec
    said: dict[str, Span] = field(default_factory=dict)
    inherited: dict[str, object] = field(default_factory=dict)

    def wants(self, alone: bool) -> list[str]:
        """Arguments whose values the request should hold; a call that is alone takes all that fit."""
        keys = [key for key in self.tool.properties if key not in self.label.fixed]
        named = {*self.tool.required, *self.label.spoken}
        return [key for key in keys if alone or key in named]


def assign(drafts: list[Draft], found: Sequence[Span], earlier: Sequence[Call]) -> list[Draft]:
    """Give each draft its spans, in their order, and then what it takes over from a call before it."""
    alone = len(drafts) == 1
    for slot in dict.fromkeys(_base(span.slot) for span in found):
        of_slot = [span for span in found if _base(span.slot) == slot]
        takers = [
            (draft, key) for draft in drafts for key in draft.wants(alone) if slot_of(draft.tool, key) == slot
        ]
        if slot in _WHOLE and takers and len(of_slot) > len(takers):
            longest = sorted(of_slot, key=lambda span: span.start - span.end)[: len(takers)]
            of_slot = sorted(longest, key=lambda span: span.start)
        for (draft, key), span in zip(takers, of_slot, strict=False):
            draft.said[key] = span
        spare = of_slot[len(takers) :]
        if takers and spare and takers[-1][0].tool.required == (takers[-1][1],):
            drafts = _repeat(drafts, *takers[-1], spare)
    if alone:
        _take_alike(drafts[0], found)
    for at, draft in enumerate(drafts):
        for key in (*draft.tool.required, *draft.label.inherited):
            if key not in draft.said:
                _inherit(draft, key, drafts[:at], drafts[at + 1 :], earlier)
    return drafts


def _take_alike(draft: Draft, found: Sequence[Span]) -> None:
    """Fill what a call needs and was not found with what was found for something alike."""
    used = set(draft.said.values())
    spare = [span for span in found if span not in used and _base(span.slot) in _ALIKE]
    for key in draft.tool.required:
        if key in _ALIKE and key not in draft.said and spare:
            draft.said[key] = spare.pop(0)._replace(slot=key)


def _base(slot: str) -> str:
    return next((slot.removesuffix(end) for end in _PATTERNS if slot.endswith(end)), slot)


def _repeat(drafts: list[Draft], last: Draft, key: str, spare: Sequence[Span]) -> list[Draft]:
    """ "restart a, b and c": one call for each."""
    at = next(i for i, draft in enumerate(drafts) if draft is last) + 1
    more = [Draft(last.label, last.tool, {**last.said, key: span}) for span in spare]
    return [*drafts[:at], *more, *drafts[at:]]


def _inherit(
    draft: Draft, key: str, before: Sequence[Draft], after: Sequence[Draft], earlier: Sequence[Call]
) -> None:
    for name in _SAME.get(key, (key,)):
        for other in (*reversed(before), *after):
            if key == "to" and other.tool.name != _MAKES_PLACE:
                continue
            if name in other.said:
                draft.said[key] = other.said[name]
                return
            if name in other.inherited:
                draft.inherited[key] = other.inherited[name]
                return
        for call in reversed(earlier):
            if key == "to" and call.tool != _MAKES_PLACE:
                continue
            if name in call.arguments:
                draft.inherited[key] = call.arguments[name]
                return
