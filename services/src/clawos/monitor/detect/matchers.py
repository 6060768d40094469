"""What a rule does with the events that its patterns mean: hit at once, count, wait for the next step, or ask
whether it is new. Each keeps a bounded number of things in mind; the one longest untouched is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from clawos.monitor.detect.fields import Getter
from clawos.monitor.event import Event

KEYS_MAX = 1024
"""Things, such as processes, that one rule counts for at a time."""
SEEN_MAX = 4096
"""What one rule has seen before."""
EVIDENCE_MAX = 8
_VALUE_MAX = 256

Hit = Sequence[Event]
"""The events that a rule holds for, the last one last."""
Key = tuple[Any, ...]


class Matcher(Protocol):
    def take(self, step: int, event: Event) -> Hit | None:
        """An event that the pattern of this step means. Returns the evidence when the rule holds."""
        ...


def key_of(getters: Sequence[Getter]) -> Callable[[Event], Key]:
    if len(getters) == 1:
        (only,) = getters
        return lambda event: (_bounded(only(event)),)
    return lambda event: tuple(_bounded(getter(event)) for getter in getters)


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_VALUE_MAX]
    return tuple(value) if isinstance(value, list) else value


class Plain:
    def take(self, step: int, event: Event) -> Hit | None:  # noqa: ARG002 # there is one
        return (event,)


class _Count:
    """Of one key: this window's count and the last one's, and a few of the events."""

    __slots__ = ("before", "began_ns", "evidence", "now")

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.before = 0
        self.now = 0
        self.evidence: list[Event] = []


class Rate:
    """`count` events within `within_s`, by a window that slides between two fixed ones."""

    def __init__(self, key: Callable[[Event], Key], count: int, within_s: float) -> None:
        self._key = key
        self._count = count
        self._within_ns = int(within_s * 1e9)
        self._counts: OrderedDict[Key, _Count] = OrderedDict()

    def take(self, step: int, event: Event) -> Hit | None:  # noqa: ARG002 # there is one
        key = self._key(event)
        count = self._counts.get(key)
        now = event.time_ns
        if count is None:
            count = self._counts[key] = _Count(now)
            if len(self._counts) > KEYS_MAX:
                self._counts.popitem(last=False)
        else:
            self._counts.move_to_end(key)
        past = now - count.began_ns
        if past >= self._within_ns:
            count.before = count.now if past < 2 * self._within_ns else 0
            count.now = 0
            count.began_ns = now if past >= 2 * self._within_ns else count.began_ns + self._within_ns
            past = now - count.began_ns
            count.evidence.clear()
        count.now += 1
        if len(count.evidence) < EVIDENCE_MAX - 1:
            count.evidence.append(event)
        share = 1 - max(past, 0) / self._within_ns
        if count.now + count.before * share < self._count:
            return None
        del self._counts[key]
        return (*(one for one in count.evidence if one is not event), event)


class Distinct:
    """`count` different values of a field within `within_s`."""

    def __init__(self, key: Callable[[Event], Key], value: Getter, count: int, within_s: float) -> None:
        self._key = key
        self._value = value
        self._count = count
        self._within_ns = int(within_s * 1e9)
        self._seen: OrderedDict[Key, OrderedDict[Any, Event]] = OrderedDict()

    def take(self, step: int, event: Event) -> Hit | None:  # noqa: ARG002 # there is one
        key = self._key(event)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = OrderedDict()
            if len(self._seen) > KEYS_MAX:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(key)
        value = _bounded(self._value(event))
        seen.pop(value, None)
        seen[value] = event
        oldest = event.time_ns - self._within_ns
        while seen:
            first = next(iter(seen))
            if seen[first].time_ns >= oldest:
                break
            del seen[first]
        if len(seen) < self._count:
            return None
        del self._seen[key]
        return tuple(seen.values())[-EVIDENCE_MAX:]


class Steps:
    """One step after another, all within `within_s` of the first."""

    def __init__(self, keys: Sequence[Callable[[Event], Key]], within_s: float) -> None:
        self._keys = keys
        self._within_ns = int(within_s * 1e9)
        self._waiting: OrderedDict[Key, tuple[Event, ...]] = OrderedDict()

    def take(self, step: int, event: Event) -> Hit | None:
        key = self._keys[step](event)
        done = self._waiting.get(key, ())
        if done and done[-1] is event:
            return None  # one event is one step
        if done and event.time_ns - done[0].time_ns > self._within_ns:
            del self._waiting[key]
            done = ()
        if len(done) < step:
            return None
        if step == 0:
            # The same again: what follows is counted from the later one.
            self._waiting[key] = (event,)
            self._waiting.move_to_end(key)
            if len(self._waiting) > KEYS_MAX:
                self._waiting.popitem(last=False)
            return None
        if len(done) > step:
            return None
        if step == len(self._keys) - 1:
            del self._waiting[key]
            return (*done, event)
        self._waiting[key] = (*done, event)
        return None


class First:
    """What was never seen before."""

    def __init__(self, key: Callable[[Event], Key]) -> None:
        self._key = key
        self.seen: OrderedDict[str, None] = OrderedDict()

    def take(self, step: int, event: Event) -> Hit | None:  # noqa: ARG002 # there is one
        key = "\0".join(map(str, self._key(event)))
        if key in self.seen:
            self.seen.move_to_end(key)
            return None
        self.seen[key] = None
        if len(self.seen) > SEEN_MAX:
            self.seen.popitem(last=False)
        return (event,)
