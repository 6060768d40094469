"""Count the system calls of every sandbox below a cgroup while this context lasts."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path

from clawos.isolator.learn import perf
from clawos.isolator.learn.calls import Calls
from clawos.isolator.learn.perf import Event, Ring, Tracepoints, Unwatchable
from clawos.isolator.learn.records import Parser, Record

# A call takes 224 bytes. All rings together and one of them, at most.
_RINGS_BYTES = 64 << 20
_RING_BYTES = 8 << 20
# A record gets its time before its place in a ring: one this old is there.
_SETTLED_NS = 100_000_000


class Watch:
    """What was seen so far, of all processors, in the order in which it was."""

    def __init__(self, calls: Calls, events: Sequence[Event], rings: Sequence[Ring], parser: Parser) -> None:
        self._calls, self._events, self._rings, self._parser = calls, events, rings, parser
        self._waiting: list[Record] = []

    def until_readable(self, fd: int) -> None:
        """Empty the rings as they fill, until there is something to read from a descriptor."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        for event in self._events:
            poll.register(event.fd, select.POLLIN)
        while fd not in {ready for ready, _ in poll.poll()}:
            before_ns = time.monotonic_ns() - _SETTLED_NS
            self._read()
            settled = sum(1 for record in self._waiting if record.time_ns < before_ns)
            self._count(settled)

    def end(self) -> int:
        """See no more. Returns how many records found no room: 0 unless calls came too fast, for too long."""
        for event in self._events:
            event.disable()
        self._read()
        self._count(len(self._waiting))
        return sum(event.lost() for event in self._events)

    def _read(self) -> None:
        for ring in self._rings:
            self._waiting += self._parser.parse(ring.read())
        self._waiting.sort(key=attrgetter("time_ns"))

    def _count(self, settled: int) -> None:
        for record in self._waiting[:settled]:
            self._calls.add(record)
        del self._waiting[:settled]


@contextmanager
def watch(cgroup: Path, calls: Calls) -> Iterator[Watch]:
    """Everything below the cgroup, from now on. Raises Unwatchable."""
    tracepoints, machine = Tracepoints.find(), perf.machine()
    cpus = _online()
    size = min(_RING_BYTES, 1 << (_RINGS_BYTES // len(cpus)).bit_length() - 1)
    with ExitStack() as held:
        try:
            group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Unwatchable(f"{cgroup}: {error.strerror}", "does the isolator run?") from None
        held.callback(os.close, group)
        events: list[Event] = []
        rings: list[Ring] = []
        for cpu in cpus:
            enter = Event(group, cpu, tracepoints.enter, size // 4, forks=True)
            held.callback(enter.close)
            rings.append(Ring(enter.fd, size))
            held.callback(rings[-1].close)
            leave = Event(group, cpu, tracepoints.exit, size // 4, registers=machine.mask)
            held.callback(leave.close)
            leave.into(enter)
            events += [enter, leave]
        # A call that is under way now is seen at its end only, as a refused one is: first watch, then run.
        for event in events:
            event.enable()
        yield Watch(calls, events, rings, Parser(tracepoints, machine))


def _online(file: Path = Path("/sys/devices/system/cpu/online")) -> list[int]:
    """`0-3,6` → 0, 1, 2, 3, 6"""
    parts = (part.split("-") for part in file.read_text().strip().split(","))
    return [cpu for part in parts for cpu in range(int(part[0]), int(part[-1]) + 1)]
