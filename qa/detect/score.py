"""What the alerts make of the acts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qa.detect.table import Act

LATEST_S = 5.0
"""An alert that comes later than this after the act's end has not found it."""
NOTE = "info"
"""The severity of what is only written down, for ordinary work brings it too: it finds nothing."""


@dataclass(frozen=True)
class Alert:
    rule: str
    severity: str
    techniques: tuple[str, ...]
    cgroup: int
    time_ns: int
    message: str = ""


@dataclass(frozen=True)
class Verdict:
    act: Act
    happened: bool
    why: str
    fitting: tuple[str, ...]
    """Rules whose alerts name one of its techniques, in time."""
    other: tuple[str, ...]
    """Rules that also told of it, but by another technique or too late."""


def judge(act: Act, run: dict[str, Any], alerts: Iterable[Alert]) -> Verdict:
    own = [alert for alert in alerts if alert.cgroup == run["cgroup"] and alert.severity != NOTE]
    latest = run.get("ended_ns", 0) + LATEST_S * 1e9
    fits = [
        alert
        for alert in own
        if alert.time_ns <= latest
        and any(related(one, other) for one in alert.techniques for other in act.techniques)
    ]
    rest = {alert.rule for alert in own} - {alert.rule for alert in fits}
    return Verdict(
        act, run["happened"], run.get("why", ""), tuple(sorted({a.rule for a in fits})), tuple(sorted(rest))
    )


def related(one: str, other: str) -> bool:
    """The same technique, or one is the other's part."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def share(verdicts: Sequence[Verdict]) -> float:
    """The part of the acts that took place which an alert found."""
    happened = [verdict for verdict in verdicts if verdict.happened]
    return sum(bool(verdict.fitting) for verdict in happened) / len(happened) if happened else 0.0


def table(verdicts: Sequence[Verdict], reasons: dict[str, str]) -> str:
    """For people: one line an act."""
    lines = []
    for verdict in verdicts:
        if not verdict.happened:
            what = f"did not happen: {' '.join(verdict.why.split())}"
        elif verdict.fitting:
            what = f"found: {', '.join(verdict.fitting)}"
        else:
            what = f"MISSED (told by: {', '.join(verdict.other) or 'nothing'})"
        lines.append(f"{verdict.act.id:60} {what}")
    lines += [f"{one:60} not run: {why}" for one, why in reasons.items()]
    return "\n".join(lines)
