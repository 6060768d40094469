"""What each tool usually does: the programs it runs, the directories it opens files in, where it connects.

It is learnt from calls that are over and raised no alert. What a later call does that none before it did
makes its score; how much one new thing says depends on how many calls there were without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from clawos.monitor.event import Event

TOOLS_MAX = 256
CALLS_MAX = 64
"""Whose events are gathered at a time."""
FEATURES_MAX = 256
"""Of each sort, of one tool and of one call."""
_CALLS_MIN = 5
"""Before so many calls nothing is unusual yet."""
_HALF_AFTER = 10
"""Calls after which a new thing weighs half of what it weighs at last."""
_WEIGHTS: Mapping[str, float] = {"program": 0.6, "destination": 0.6, "directory": 0.25}
_DEPTH = 3
"""Of a path, so many directories: /usr/lib/python3."""
THRESHOLD = 0.5
_REASONS_MAX = 8
_WORDS = {"program": "ran", "destination": "connected to", "directory": "opened files in"}

Feature = tuple[str, str]


class Profile(msgspec.Struct):
    """One tool."""

    calls: int = 0
    seen: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """By sort, in the order in which they came."""


@dataclass(slots=True)
class _Doing:
    """What one call has done so far."""

    features: dict[Feature, None] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    told: float = 0.0


class Baseline:
    def __init__(self) -> None:
        self._profiles: OrderedDict[str, tuple[int, dict[str, OrderedDict[str, None]]]] = OrderedDict()
        self._doing: OrderedDict[str, _Doing] = OrderedDict()
        self.is_changed = False

    def saw(self, event: Event) -> bool:
        """Take an event of a call. Returns whether the call did something that it had not done before."""
        doing = self._doing.get(event.call)
        if doing is None:
            doing = self._doing[event.call] = _Doing()
            if len(self._doing) > CALLS_MAX:
                self._doing.popitem(last=False)
        path = event.own.get("path") or ""
        if event.kind == "open" or event.kind == "create":
            # Files by the thousand lie in directories by the dozen.
            directory = path[: path.rfind("/")]
            if directory in doing.directories:
                return False
            if len(doing.directories) < FEATURES_MAX:
                doing.directories.add(directory)
        feature = feature_of(event)
        if feature in doing.features or len(doing.features) >= FEATURES_MAX:
            return False
        doing.features[feature] = None
        return True

    def judge(self, call: str, tool: str) -> tuple[float, list[str]] | None:
        """Score and reasons, where the call has become unusual; told once, and again when it doubles."""
        doing = self._doing.get(call)
        profile = self._profiles.get(tool)
        if doing is None or profile is None or profile[0] < _CALLS_MIN:
            return None
        calls, seen = profile
        sure = calls / (calls + _HALF_AFTER)
        usual, reasons = 1.0, []
        for sort, value in doing.features:
            if value not in seen.get(sort, ()):
                usual *= 1 - _WEIGHTS[sort] * sure
                reasons.append(f"{_WORDS[sort]} {value}")
        score = round(1 - usual, 3)
        if score < THRESHOLD or (doing.told and 1 - score > (1 - doing.told) / 2):
            return None
        doing.told = score
        return score, reasons[:_REASONS_MAX]

    def over(self, call: str, tool: str, *, learn: bool) -> None:
        """A call has ended."""
        doing = self._doing.pop(call, None)
        if doing is None or not learn or not tool:
            return
        calls, seen = self._profiles.pop(tool, (0, {}))
        for sort, value in doing.features:
            values = seen.setdefault(sort, OrderedDict())
            values[value] = None
            values.move_to_end(value)
            if len(values) > FEATURES_MAX:
                values.popitem(last=False)
        self._profiles[tool] = (calls + 1, seen)
        if len(self._profiles) > TOOLS_MAX:
            self._profiles.popitem(last=False)
        self.is_changed = True

    def written(self) -> dict[str, Profile]:
        """As it is kept."""
        return {
            tool: Profile(calls, {sort: list(values) for sort, values in seen.items()})
            for tool, (calls, seen) in self._profiles.items()
        }

    def read(self, profiles: Mapping[str, Profile]) -> None:
        for tool, profile in list(profiles.items())[-TOOLS_MAX:]:
            seen = {
                sort: OrderedDict.fromkeys(values[-FEATURES_MAX:])
                for sort, values in profile.seen.items()
                if sort in _WEIGHTS
            }
            self._profiles[tool] = (max(profile.calls, 0), seen)

    def __len__(self) -> int:
        return len(self._profiles)


FEATURES = frozenset({"open", "create", "exec", "connect"})
"""The kinds that say something of a tool's habits."""


def feature_of(event: Event) -> Feature:
    """What of an event is compared."""
    if event.kind == "exec":
        return ("program", event.own["path"])
    if event.kind == "connect":
        return ("destination", _destination(event.own))
    return ("directory", _directory(event.own["path"]))


def _directory(path: str) -> str:
    if not path.startswith("/"):  # a pipe, opened by its name below /proc: "pipe:[5082]"
        return path.partition(":")[0]
    parts = path.split("/", _DEPTH + 1)
    if parts[1] == "proc" and len(parts) > 3:
        return "/proc/" + ("PID" if parts[2].isdigit() else parts[2])
    return "/".join(parts[: min(len(parts) - 1, _DEPTH + 1)]) or "/"


def _destination(own: Mapping[str, Any]) -> str:
    if path := own.get("path"):
        return str(path)
    return f"{own.get('address')}:{own.get('port')}"
