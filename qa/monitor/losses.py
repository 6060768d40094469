"""In the guest, as root: more events than are taken, and what becomes of each. Prints one JSON object.

losses.py COUNT SECONDS  nobody reads for so long; the reader is killed
losses.py limited        where there is no monitor: load it without its guard, set a limit, unload it
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from clawos.monitor import load, protect
from clawos.monitor.kinds import Kind
from clawos.monitor.source import Array, PinnedRing, open_pin

sys.path.insert(0, "/run")

from qa.monitor.in_cgroup import confine

PINS = Path("/sys/fs/bpf/clawos/monitor")
LEAF = Path("/sys/fs/cgroup/system.slice/clawos-isolator.service/call-fedcba9876543210")
FILE = Path("/tmp/losses")
BATCH = 10_000
_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_UPDATE = 2
COUNT = struct.Struct("=5Q")


@contextmanager
def leaf() -> Iterator[None]:
    LEAF.mkdir(parents=True)
    FILE.touch()
    try:
        yield
    finally:
        LEAF.rmdir()


def offer(count: int, first: int = 0) -> int:
    """A process there opens a file so many times, each with flags of its own; returns its pid."""
    pid = os.fork()
    if not pid:
        (LEAF / "cgroup.procs").write_text("0")
        confine()
        for number in range(first, first + count):
            os.close(os.open(f"{FILE}", os.O_RDONLY | (os.O_NOATIME if number % 2 else 0)))
        os._exit(0)
    return pid


def opens(source: PinnedRing, pid: int) -> int:
    """How many the ring still has of that process."""
    count = 0
    while events := source.read(BATCH):
        count += sum(
            event.kind == "open" and event.tgid == pid and event.own["path"] == str(FILE) for event in events
        )
    return count


def drain(source: PinnedRing) -> None:
    while source.read(BATCH):
        pass


def counts() -> list[tuple[int, ...]]:
    """Of `open`, for each processor: emitted, lost, kept back by the limit."""
    fd = open_pin(PINS / "counts")
    values = Array(fd, COUNT.size)[Kind.OPEN]
    os.close(fd)
    return [COUNT.unpack(value)[:3] for value in values]


def total() -> list[int]:
    return [sum(column) for column in zip(*counts(), strict=True)]


def nobody_reads(source: PinnedRing, count: int, wait_s: float) -> dict[str, object]:
    drain(source)
    before = total()
    pid = offer(count)
    os.waitpid(pid, 0)
    time.sleep(wait_s)
    after = total()
    used = source.used()
    each = counts()
    emitted, lost, limited = (new - old for new, old in zip(after, before, strict=True))
    found = opens(source, pid)
    drain(source)
    last = total()
    again = offer(1000)
    os.waitpid(again, 0)
    return {
        "offered": count,
        "emitted": emitted,
        "lost": lost,
        "limited": limited,
        "read": found,
        "used": used,
        "by_processor": each,
        "told": source.lost().get("open", 0),
        "after": opens(source, again),
        "lost_after": total()[1] - last[1],
    }


def reader_is_killed(count: int) -> dict[str, object]:
    """It takes some and dies; who comes next has the rest, each once."""
    source = PinnedRing.open(PINS)
    drain(source)
    source.close()
    pid = offer(count)
    os.waitpid(pid, 0)
    reading, writing = os.pipe()
    reader = os.fork()
    if not reader:
        mine = PinnedRing.open(PINS)
        taken = mine.read(count // 3)
        number = sum(
            event.kind == "open" and event.tgid == pid and event.own["path"] == str(FILE) for event in taken
        )
        os.write(writing, struct.pack("=I", number))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(reader, 0)
    (first,) = struct.unpack("=I", os.read(reading, 4))
    source = PinnedRing.open(PINS)
    return {"offered": count, "first": first, "second": opens(source, pid)}


def set_limit(kind: Kind, per_second: int, flags: int) -> None:
    limits = open_pin(PINS / "kinds", write=True)
    key, value = ctypes.c_uint32(kind), ctypes.create_string_buffer(struct.pack("=II", per_second, flags), 8)
    attributes = struct.pack("=IIQQQ", limits, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    if ctypes.CDLL(None, use_errno=True).syscall(_BPF, _UPDATE, attributes, len(attributes)):
        raise OSError(ctypes.get_errno(), "limit")
    os.close(limits)


def limited(count: int) -> dict[str, object]:
    """The guard lets nobody change a limit."""
    with mock.patch.object(protect, "arm"):
        load.load()
    source = PinnedRing.open(PINS)
    set_limit(Kind.OPEN, 100, 0)
    try:
        with leaf():
            return nobody_reads(source, count, 0)
    finally:
        source.close()
        shutil.rmtree(load.PINS)


def main(what: str, wait_s: str = "0") -> None:
    if what == "limited":
        told = limited(5000)
    else:
        with leaf():
            told = {"killed": reader_is_killed(3000)}
            told["stopped"] = nobody_reads(PinnedRing.open(PINS), int(what), float(wait_s))
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
