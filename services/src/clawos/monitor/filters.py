"""Which events a subscriber or a question wants, parsed from JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from clawos.core.errors import BadRequest
from clawos.core.parse import Record, from_json
from clawos.monitor.detect.fields import OWN
from clawos.monitor.detect.language import SEVERITIES, Severity
from clawos.monitor.errors import FilterInvalid
from clawos.monitor.event import Event

_Id = Annotated[str, Meta(max_length=64)]
LIMIT_MAX = 5000


class EventFilter(Record, frozen=True):
    """What `Subscribe` and `Recent` are given; what is left out does not matter."""

    kinds: Annotated[tuple[str, ...], Meta(max_length=len(OWN))] = ()
    call: _Id = ""
    session: _Id = ""
    tool: _Id = ""
    tgid: int | None = None
    start_ns: int | None = None
    """With tgid: this process, and none that got its number later."""
    uid: int | None = None
    inside: bool | None = None
    """Only in sandboxes, or only outside."""
    since: str = ""
    until: str = ""
    """UTC, as ISO 8601 has it."""
    alerts: bool = False
    """Of Subscribe: alerts, too."""
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = 200
    """Of Recent."""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in OWN:
                raise ValueError(f"kinds: there is no kind {kind[:32]!r}; there are {', '.join(OWN)}")
        for name, text in (("since", self.since), ("until", self.until)):
            if text and _time_ns(text) is None:
                raise ValueError(f"{name}: {text[:40]!r} is no time, such as 2026-01-31T12:00:00Z")

    def test(self, offset_ns: int) -> Callable[[Event], bool]:
        """`offset_ns`: what makes UTC of a time since boot."""
        kinds = frozenset(self.kinds)
        since, until = (_time_ns(text) for text in (self.since, self.until))
        least = since - offset_ns if since is not None else 0
        most = until - offset_ns if until is not None else 1 << 63

        def wanted(event: Event) -> bool:
            return (
                (not kinds or event.kind in kinds)
                and (not self.call or event.call == self.call or event.call.partition("-")[0] == self.call)
                and (self.inside is None or bool(event.call) is self.inside)
                and (self.tgid is None or event.tgid == self.tgid)
                and (self.start_ns is None or event.start_ns == self.start_ns)
                and (self.uid is None or event.uid == self.uid)
                and least <= event.time_ns <= most
                and (not (self.session or self.tool) or self._is_of(event))
            )

        return wanted

    def _is_of(self, event: Event) -> bool:
        sandbox = event.process.sandbox if event.process else None
        if sandbox is None or not event.call:
            return False
        return (not self.session or sandbox.session == self.session) and (
            not self.tool or sandbox.tool == self.tool
        )


class AlertFilter(Record, frozen=True):
    """What `Alerts` is given."""

    severity: Severity = SEVERITIES[0]
    """And above."""
    call: _Id = ""
    session: _Id = ""
    rule: _Id = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class TraceRequest(Record, frozen=True):
    """What `Trace` is given: a call, or "last", and in which session that was."""

    call: _Id = "last"
    session: _Id = ""


def parsed[T](text: str, kind: type[T], what: str) -> T:
    """Raises FilterInvalid."""
    try:
        return from_json(text or "{}", kind, what)
    except BadRequest as error:
        raise FilterInvalid(error.message, error.hint) from None


def _time_ns(text: str) -> int | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(found.timestamp() * 1e9) if text else None
