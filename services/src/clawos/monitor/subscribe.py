"""Subscribers: each has a pipe, and takes what he can. We never wait for one: what he does not take in time
is lost to him, and the stream says how much that was."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable

from clawos.core.errors import Busy
from clawos.core.parse import to_json_line
from clawos.monitor.alerts import Alert
from clawos.monitor.engine import Taker
from clawos.monitor.event import Event, boot_offset_ns, described
from clawos.monitor.filters import EventFilter

WAITING_MAX = 2048
"""Events that wait for a reader, beside what the pipe holds."""
_PIPE_BYTES = 256 * 1024
_CHUNK = 64
"""Lines that are made at a time."""


class Subscriber:
    """`engine.Taker`."""

    def __init__(self, wanted: EventFilter, on_end: Callable[[Subscriber], None]) -> None:
        self.wants_alerts = wanted.alerts
        self.lost = 0
        self._lost_untold = 0
        self._wanted = wanted.test(boot_offset_ns())
        self._on_end = on_end
        self._waiting: deque[Event | Alert] = deque()
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._blocked = False
        self.read_fd, self._fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.read_fd, True)
        with contextlib.suppress(OSError):  # beyond what one user's pipes may hold: then it is smaller
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # Of the write end of a pipe, this is when nobody reads any more.
        self._loop.add_reader(self._fd, self.close)

    def take(self, event: Event) -> None:
        if self._wanted(event):
            self._put(event)

    def take_alert(self, alert: Alert) -> None:
        if self.wants_alerts:
            self._put(alert)

    def close(self) -> None:
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._waiting.clear()
        self._on_end(self)

    def _put(self, one: Event | Alert) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self.lost += 1
            self._lost_untold += 1
            return
        self._waiting.append(one)
        if not self._scheduled and not self._blocked:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._fd < 0:
            return
        try:
            while self._rest or self._waiting or self._lost_untold:
                data = self._rest or self._lines()
                written = os.write(self._fd, data)
                self._rest = data[written:]
        except BlockingIOError:
            self._rest = data
            if not self._blocked:
                self._blocked = True
                self._loop.add_writer(self._fd, self._flush)
            return
        except OSError:
            self.close()
            return
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._fd)

    def _lines(self) -> bytes:
        offset_ns = boot_offset_ns()
        lines: list[bytes] = []
        while self._waiting and len(lines) < _CHUNK:
            one = self._waiting.popleft()
            line = described(one, offset_ns) if isinstance(one, Event) else {"kind": "alert", **told(one)}
            lines.append(to_json_line(line))
        if self._lost_untold and not self._waiting:
            # Behind what came before they were lost.
            lines.append(to_json_line({"kind": "lost", "of": "subscriber", "count": self._lost_untold}))
            self._lost_untold = 0
        return b"".join(lines)


class Subscribers:
    """All of them. `takers`: who is handed each event; they come and go there, too."""

    def __init__(self, most: int, takers: set[Taker]) -> None:
        self._most = most
        self._takers = takers
        self._all: set[Subscriber] = set()
        self._lost_before = 0

    def add(self, wanted: EventFilter) -> int:
        """The read end of one more stream. Raises Busy."""
        if len(self._all) >= self._most:
            raise Busy(
                f"{len(self._all)} subscribers are there, and no more may be",
                "end one of them; see subscribers_max in /etc/clawos/monitor.toml",
            )
        subscriber = Subscriber(wanted, self._ended)
        self._all.add(subscriber)
        self._takers.add(subscriber)
        return subscriber.read_fd

    def take_alert(self, alert: Alert) -> None:
        for subscriber in tuple(self._all):
            subscriber.take_alert(alert)

    @property
    def lost(self) -> int:
        """Events that one of them, now or before, was too slow for."""
        return self._lost_before + sum(subscriber.lost for subscriber in self._all)

    def close(self) -> None:
        for subscriber in tuple(self._all):
            subscriber.close()

    def __len__(self) -> int:
        return len(self._all)

    def _ended(self, subscriber: Subscriber) -> None:
        self._all.discard(subscriber)
        self._takers.discard(subscriber)
        self._lost_before += subscriber.lost


def told(alert: Alert) -> dict[str, object]:
    return {name: getattr(alert, name) for name in alert.__struct_fields__}
