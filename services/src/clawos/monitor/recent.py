"""The events of late, for whoever asks what happened. Bounded, and no flood of one sandbox, nor of opened
files, pushes out what else there was."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from clawos.monitor.event import Event

CALLS_MAX = 24
PER_CALL_MAX = 192
"""Of opened files, and as many of everything else."""
OUTSIDE_MAX = 1536
_FILES = frozenset({"open", "create", "unlink", "rename", "chmod", "fork", "exit", "mprotect"})
"""What comes in floods."""


class _Kept:
    __slots__ = ("files", "rest")

    def __init__(self, limit: int) -> None:
        self.files: deque[Event] = deque(maxlen=limit)
        self.rest: deque[Event] = deque(maxlen=limit)


class Recent:
    def __init__(self) -> None:
        self._outside = _Kept(OUTSIDE_MAX)
        self._calls: OrderedDict[str, _Kept] = OrderedDict()

    def add(self, event: Event) -> None:
        call = event.call
        kept = self._calls.get(call) or self._begin(call) if call else self._outside
        (kept.files if event.kind in _FILES else kept.rest).append(event)

    def _begin(self, call: str) -> _Kept:
        kept = self._calls[call] = _Kept(PER_CALL_MAX)
        if len(self._calls) > CALLS_MAX:
            self._calls.popitem(last=False)
        return kept

    def is_complete(self, call: str) -> bool:
        """Whether all that a call did is still here."""
        kept = self._calls.get(call)
        return kept is not None and max(len(kept.files), len(kept.rest)) < PER_CALL_MAX

    def of_call(self, call: str) -> list[Event]:
        """In the order in which they happened."""
        kept = self._calls.get(call)
        return sorted([*kept.files, *kept.rest], key=lambda event: event.time_ns) if kept else []

    def find(self, wanted: Callable[[Event], bool], limit: int, call: str = "") -> list[Event]:
        """The last ones, the newest last."""
        if call:
            found = [event for event in self.of_call(call) if wanted(event)]
        else:
            found = sorted((event for event in self._all() if wanted(event)), key=lambda e: e.time_ns)
        return found[-limit:]

    def _all(self) -> Iterator[Event]:
        for kept in (self._outside, *self._calls.values()):
            yield from kept.files
            yield from kept.rest

    def __len__(self) -> int:
        return sum(len(kept.files) + len(kept.rest) for kept in (self._outside, *self._calls.values()))
