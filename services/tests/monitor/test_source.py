"""The pins of the kernel side, by real maps in a BPF file system of the test's own."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawos.monitor import source
from clawos.monitor.errors import KernelSideMissing
from clawos.monitor.kinds import Kind
from clawos.monitor.source import PACKET_COUNTS, PinnedCounters, PinnedRing

_CREATE, _UPDATE, _PIN = 0, 2, 6
_ARRAY, _PERCPU_ARRAY, _RINGBUF = 2, 6, 27
RING_BYTES = 64 * 1024


def make(path: Path, kind: int, key: int, value: int, entries: int) -> int:
    fd = source._bpf(_CREATE, struct.pack("=IIIII", kind, key, value, entries, 0).ljust(72, b"\0"))
    name = ctypes.create_string_buffer(os.fsencode(path))
    source._bpf(_PIN, struct.pack("=QII", ctypes.addressof(name), fd, 0))
    return fd


def put(fd: int, index: int, *values: bytes) -> None:
    """An element, of each processor that there may be; those that are not given are zeros."""
    key = ctypes.c_uint32(index)
    data = b"".join(values)
    value = ctypes.create_string_buffer(data, max(len(data), 1))
    source._bpf(_UPDATE, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0))


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "bpf"
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.fixture
def maps(pins: Path) -> Iterator[dict[str, int]]:
    made = {
        "events": make(pins / "events", _RINGBUF, 0, 0, RING_BYTES),
        "counts": make(pins / "counts", _PERCPU_ARRAY, 4, 40, len(Kind) + 1),
    }
    yield made
    for fd in made.values():
        os.close(fd)


def test_an_empty_ring_is_read_and_waited_for(pins: Path, maps: dict[str, int]) -> None:
    ring = PinnedRing.open(pins)
    assert ring.read(100) == []
    assert ring.used() == 0
    assert ring.lost() == {}
    assert ring.fileno() >= 0
    ring.close()


def test_what_was_lost_is_added_up_over_processors(pins: Path, maps: dict[str, int]) -> None:
    one = struct.pack("=5Q", 1000, 3, 4, 0, 0)
    others = [struct.pack("=5Q", 1, 1, 0, 0, 0)] * (source._processors() - 1)
    put(maps["counts"], Kind.OPEN, one, *others)
    ring = PinnedRing.open(pins)
    assert ring.lost() == {"open": 7 + len(others)}
    ring.close()


def test_without_pins_it_says_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(KernelSideMissing, match="No such file") as missing:
        PinnedRing.open(tmp_path)
    assert "clawos-monitor-load" in missing.value.hint


def test_packets_and_denials_are_counted(pins: Path) -> None:
    egress = make(pins / "egress_counts", _PERCPU_ARRAY, 4, 16, len(PACKET_COUNTS))
    hits = make(pins / "enforce_hits", _ARRAY, 4, 8, 16)
    others = [struct.pack("=QQ", 1, 60)] * (source._processors() - 1)
    put(egress, PACKET_COUNTS.index("dropped_port"), struct.pack("=QQ", 5, 300), *others)
    put(hits, 3, struct.pack("=Q", 9))
    counters = PinnedCounters(pins, {0: "first", 3: "path:sandbox:/x"})
    assert counters.denials() == {"path:sandbox:/x": 9}
    packets = counters.xdp()
    assert packets["egress", "dropped_port"] == 5 + len(others)
    assert packets["egress", "passed_rule"] == 0
    assert not any(program == "uplink" for program, _ in packets)
    for fd in (egress, hits):
        os.close(fd)


def test_where_no_such_program_is_loaded_nothing_is_counted(tmp_path: Path) -> None:
    counters = PinnedCounters(tmp_path, {0: "first"})
    assert (counters.xdp(), counters.denials()) == ({}, {})
