"""What perf events write, from bytes: calls that began, calls that ended, threads that were made."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from clawos.isolator.learn.perf import Machine, Tracepoints, Unwatchable

_FORK, _SAMPLE = 7, 9  # PERF_RECORD_*
_HEADER = struct.Struct("<IHH")
# tid, time, the tracepoint's number, then what it tells; cgroup
_ENTER = struct.Struct("<12xIQ4xH6x q6Q 4xQ")
_EXIT = "<12xIQ4xH6x qq 4xQ{}QQ"  # behind what it tells: the ABI, registers if there is one
_FORKED = struct.Struct("<16xIIQ")

Arguments = tuple[int | None, ...]


class Began(NamedTuple):
    """Behind the filter: it lets this call through."""

    time_ns: int
    tid: int
    cgroup_id: int
    number: int
    arguments: Arguments


class Ended(NamedTuple):
    """Also of a call that the filter refused."""

    time_ns: int
    tid: int
    cgroup_id: int
    number: int
    arguments: Arguments
    """None: this machine's kernel does not keep it where events look."""
    returned: int


class Forked(NamedTuple):
    time_ns: int
    tid: int
    parent_tid: int


Record = Began | Ended | Forked


class Parser:
    def __init__(self, tracepoints: Tracepoints, machine: Machine) -> None:
        self._tracepoints = tracepoints
        known = sorted(register for register in machine.registers if register is not None)
        self._exit = struct.Struct(_EXIT.format(len(known)))
        self._bare_exit = struct.Struct(_EXIT.format(0))
        self._places = [None if r is None else known.index(r) for r in machine.registers]

    def parse(self, data: bytes) -> Iterator[Record]:
        """Of whole records; those that nobody here asks for are left out. Raises Unwatchable."""
        at, end = 0, len(data)
        while at < end:
            if end - at < _HEADER.size:
                raise _unknown(data[at:])
            kind, _, size = _HEADER.unpack_from(data, at)
            if not _HEADER.size <= size <= end - at:
                raise _unknown(data[at:])
            if kind == _SAMPLE:
                yield self._sample(data, at, size)
            elif kind == _FORK:
                if size != _FORKED.size:
                    raise _unknown(data[at : at + size])
                tid, parent_tid, time_ns = _FORKED.unpack_from(data, at)
                yield Forked(time_ns, tid, parent_tid)
            at += size

    def _sample(self, data: bytes, at: int, size: int) -> Record:
        if size == _ENTER.size:
            tid, time_ns, tracepoint, number, *arguments, cgroup_id = _ENTER.unpack_from(data, at)
            if tracepoint == self._tracepoints.enter:
                return Began(time_ns, tid, cgroup_id, number, tuple(arguments))
        elif size in (self._exit.size, self._bare_exit.size):
            form = self._exit if size == self._exit.size else self._bare_exit
            tid, time_ns, tracepoint, number, returned, _, *values, cgroup_id = form.unpack_from(data, at)
            if tracepoint == self._tracepoints.exit:
                # Who has no registers, as threads of the kernel, has no ABI.
                told = tuple(None if place is None or not values else values[place] for place in self._places)
                return Ended(time_ns, tid, cgroup_id, number, told, returned)
        raise _unknown(data[at : at + size])


def _unknown(record: bytes) -> Unwatchable:
    return Unwatchable(f"the kernel's record is of no form known here: {record[:64].hex()}")
