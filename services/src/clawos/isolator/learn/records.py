"""What perf events write, from bytes: calls that began, calls that ended, threads that were made."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from clawos.isolator.learn.perf import Machine, Tracepoints, Unwatchable

_FORK, _SAMPLE = 7, 9  # PERF_RECORD_*
_HEADER = struct.Struct("<IHH")
# pid, tid, time, size of the raw data. That begins with the tracepoint's number, and ends 4 bytes after its
# last word.
_START = struct.Struct("<IIQIHHI")
_CALL, _RESULT, _WORD = struct.Struct("<q6Q"), struct.Struct("<qq"), struct.Struct("<Q")
_PAD = 4
_CALL_AT = _HEADER.size + _START.size
_FORKED = struct.Struct("<IIIIQ")

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
        self._values = struct.Struct(f"<{len(known)}Q")
        self._places = [None if r is None else known.index(r) for r in machine.registers]

    def parse(self, data: bytes) -> Iterator[Record]:
        """Of whole records; those that nobody here asks for are left out. Raises Unwatchable."""
        at = 0
        try:
            while at < len(data):
                kind, _, size = _HEADER.unpack_from(data, at)
                record = data[at : at + size]
                if size < _HEADER.size or len(record) < size:
                    raise Unwatchable(f"the kernel's record of {size} bytes has no end")
                if kind == _SAMPLE:
                    yield self._sample(record)
                elif kind == _FORK:
                    _, _, tid, parent_tid, time_ns = _FORKED.unpack_from(record, _HEADER.size)
                    yield Forked(time_ns, tid, parent_tid)
                at += size
        except struct.error as error:
            raise Unwatchable(f"the kernel's record is not of the form known here: {error}") from None

    def _sample(self, record: bytes) -> Record:
        _, tid, time_ns, _, tracepoint, _, _ = _START.unpack_from(record, _HEADER.size)
        (cgroup_id,) = _WORD.unpack_from(record, len(record) - _WORD.size)
        if tracepoint == self._tracepoints.enter:
            self._check(record, _CALL_AT + _CALL.size + _PAD + _WORD.size)
            number, *arguments = _CALL.unpack_from(record, _CALL_AT)
            return Began(time_ns, tid, cgroup_id, number, tuple(arguments))
        if tracepoint != self._tracepoints.exit:
            raise Unwatchable(f"the kernel's record is of tracepoint {tracepoint}")
        number, returned = _RESULT.unpack_from(record, _CALL_AT)
        return Ended(time_ns, tid, cgroup_id, number, self._registers(record), returned)

    def _registers(self, record: bytes) -> Arguments:
        """Of a caller, in the order of arguments. Who has none, as threads of the kernel, has no ABI."""
        at = _CALL_AT + _RESULT.size + _PAD
        (abi,) = _WORD.unpack_from(record, at)
        if not abi:
            self._check(record, at + 2 * _WORD.size)
            return (None,) * len(self._places)
        self._check(record, at + 2 * _WORD.size + self._values.size)
        values = self._values.unpack_from(record, at + _WORD.size)
        return tuple(None if place is None else values[place] for place in self._places)

    def _check(self, record: bytes, size: int) -> None:
        if len(record) != size:
            raise Unwatchable(f"the kernel's record has {len(record)} bytes, not {size}")
