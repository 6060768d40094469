"""One event, as the kernel side told it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from clawos.monitor.tree import Process

_STEP_NS = 10_000_000
"""A clock that is slewed drifts by less in an hour; one that is set moves further at once."""


class Event(msgspec.Struct, gc=False):
    """A hundred thousand of these may come in a second: one object, made positionally, and one dict.

    Not frozen only for `process`, which the tree fills in. Nothing in it can lead back to it: no garbage
    collection.
    """

    kind: str
    time_ns: int
    """Since boot, asleep or not: no clock that somebody sets."""
    call: str
    """The sandbox's call id, or "" outside of any."""
    cgroup: int
    pid: int
    """The thread."""
    tgid: int
    start_ns: int
    """When the process (tgid) started: with it the process's name for ever."""
    ppid: int
    parent_start_ns: int
    uid: int
    gid: int
    comm: str
    own: dict[str, Any]
    """What events of this kind have beside the above."""
    process: Process | None = None


class _Offset:
    """What added to a time since boot gives UTC, by the clock as it is set now."""

    def __init__(self) -> None:
        self._known_ns = 0

    def __call__(self) -> int:
        """The same while nobody sets the clock: an event has one time, whoever asks for it when."""
        now_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if abs(now_ns - self._known_ns) > _STEP_NS:
            self._known_ns = now_ns
        return self._known_ns


boot_offset_ns = _Offset()


def utc(time_ns: int, offset_ns: int) -> str:
    """A time since boot, as people read it."""
    seconds, rest = divmod(time_ns + offset_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest // 1000:06}Z"


def described(event: Event, offset_ns: int) -> dict[str, Any]:
    """As it goes to people and programs: the fields of all kinds, the tree's, then its own."""
    process = event.process
    told: dict[str, Any] = {
        "time": utc(event.time_ns, offset_ns),
        "time_ns": event.time_ns,
        "kind": event.kind,
        "call": event.call,
        "cgroup": event.cgroup,
        "pid": event.pid,
        "tgid": event.tgid,
        "start_ns": event.start_ns,
        "ppid": event.ppid,
        "parent_start_ns": event.parent_start_ns,
        "uid": event.uid,
        "gid": event.gid,
        "comm": event.comm,
    }
    if process is not None:
        told |= {"exe": process.exe, "parent": process.parent, "ancestors": process.lineage}
        if event.call and process.sandbox is not None:
            told |= {"session": process.sandbox.session, "tool": process.sandbox.tool}
    return told | event.own
