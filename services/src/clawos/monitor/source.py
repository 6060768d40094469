"""The kernel side, by its pins: the ring of events, and what it counts."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import select
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from clawos.monitor.errors import KernelSideMissing
from clawos.monitor.event import Event
from clawos.monitor.kinds import Kind
from clawos.monitor.records import RecordBroken, event_of
from clawos.monitor.ring import Ring

_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_LOOKUP, _OBJ_GET, _INFO = 1, 7, 15
_READ_ONLY = 1 << 3  # BPF_F_RDONLY
_COUNT = struct.Struct("=5Q")
"""struct kind_count"""
_PACKETS = struct.Struct("=QQ")
"""struct packets: how many, and their bytes."""
_HITS = struct.Struct("=Q")
PACKET_COUNTS = (
    *("passed_arp", "passed_rule", "passed_icmp", "passed_reply", "passed_fragment"),
    *(
        "dropped_malformed",
        "dropped_type",
        "dropped_protocol",
        "dropped_fragment",
        "dropped_port",
        "dropped_rate",
    ),
)
"""enum count of ebpf/xdp/xdp.h"""
_MAP_INFO = struct.Struct("=5I")
"""struct bpf_map_info, as far as max_entries: type, id, key_size, value_size, max_entries."""

log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    """Raises OSError."""
    result: int = _libc.syscall(_BPF, command, attributes, len(attributes))
    if result < 0:
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number))
    return result


def open_pin(path: Path, *, write: bool = False) -> int:
    """A descriptor of a pinned map. Raises OSError."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    flags = 0 if write else _READ_ONLY
    return _bpf(_OBJ_GET, struct.pack("<QII", ctypes.addressof(name), 0, flags))


def _max_entries(fd: int) -> int:
    info = ctypes.create_string_buffer(_MAP_INFO.size)
    _bpf(_INFO, struct.pack("<IIQ", fd, _MAP_INFO.size, ctypes.addressof(info)))
    return int(_MAP_INFO.unpack(info.raw)[4])


class Array:
    """An array in the kernel; most often each processor has its own."""

    def __init__(self, fd: int, value_bytes: int, *, per_cpu: bool = True) -> None:
        self._fd = fd
        self._value_bytes = value_bytes + 7 & ~7
        self._buffer = ctypes.create_string_buffer(self._value_bytes * (_processors() if per_cpu else 1))

    def __getitem__(self, index: int) -> list[bytes]:
        """The values of all processors, or the only one. Raises OSError."""
        key = ctypes.c_uint32(index)
        address, buffer = ctypes.addressof(key), ctypes.addressof(self._buffer)
        _bpf(_LOOKUP, struct.pack("<IIQQQ", self._fd, 0, address, buffer, 0))
        raw, size = self._buffer.raw, self._value_bytes
        return [raw[start : start + size] for start in range(0, len(raw), size)]


def _processors() -> int:
    """Those that there may ever be: so many values the kernel hands over."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.rpartition("-")[2].rpartition(",")[2]) + 1


class PinnedRing:
    """`ports.Source`."""

    def __init__(self, events: int, counts: int) -> None:
        self._fd = events
        self._size = _max_entries(events)
        self._ring = Ring(events, self._size)
        self._broken = 0
        self._counts = Array(counts, _COUNT.size)
        # The loop cannot watch a map's descriptor itself; an epoll of our own it can.
        self._poll = select.epoll()
        self._poll.register(events, select.EPOLLIN | select.EPOLLET)

    @classmethod
    def open(cls, pins: Path) -> PinnedRing:
        """Raises KernelSideMissing."""
        try:
            return cls(open_pin(pins / "events", write=True), open_pin(pins / "counts"))
        except OSError as error:
            raise KernelSideMissing(
                f"the programs of the kernel side are not there: {pins}: {error.strerror}",
                "see 'systemctl status clawos-monitor-load'",
            ) from None

    def fileno(self) -> int:
        return self._poll.fileno()

    def read(self, limit: int) -> Sequence[Event]:
        self._poll.poll(0)  # what woke us is seen
        events = []
        for record in self._ring.read(limit):
            try:
                events.append(event_of(record))
            except RecordBroken as error:
                if not self._broken:
                    log.error("%s; more such are not told", error)
                self._broken += 1
        return events

    def lost(self) -> Mapping[str, int]:
        found = {}
        for kind in Kind:
            values = [_COUNT.unpack_from(value) for value in self._counts[kind]]
            if count := sum(lost + limited for _, lost, limited, _, _ in values):
                found[kind.word] = count
        if self._broken:
            found["record"] = self._broken
        return found

    def used(self) -> float:
        return self._ring.waiting_bytes / self._size

    def close(self) -> None:
        self._poll.close()
        self._ring.close()
        os.close(self._fd)


class PinnedCounters:
    """`ports.Counters`. A map that is not there counts nothing: no such program is loaded."""

    def __init__(self, pins: Path, rules: Mapping[int, str]) -> None:
        """`rules`: what the rules of the enforcement are called, by their numbers."""
        self._xdp = {
            name: made
            for name in ("egress", "uplink")
            if (made := _opened(pins / f"{name}_counts", _PACKETS.size)) is not None
        }
        self._hits = _opened(pins / "enforce_hits", _HITS.size, per_cpu=False)
        self._rules = rules

    def xdp(self) -> Mapping[tuple[str, str], int]:
        return {
            (program, what): sum(_PACKETS.unpack(value)[0] for value in made[index])
            for program, made in self._xdp.items()
            for index, what in enumerate(PACKET_COUNTS)
        }

    def denials(self) -> Mapping[str, int]:
        hits = self._hits
        if hits is None:
            return {}
        found = {name: int(_HITS.unpack(hits[number][0])[0]) for number, name in self._rules.items()}
        return {name: count for name, count in found.items() if count}


def _opened(path: Path, value_bytes: int, *, per_cpu: bool = True) -> Array | None:
    try:
        return Array(open_pin(path), value_bytes, per_cpu=per_cpu)
    except FileNotFoundError:
        return None
