"""The bus face of the monitor: org.clawos.Monitor1."""

from __future__ import annotations

from typing import ClassVar

from clawos.core.bus import Fd, Interface, Str, caller, method
from clawos.core.parse import to_json
from clawos.monitor.filters import AlertFilter, EventFilter, TraceRequest, parsed
from clawos.monitor.service import Monitor


class MonitorInterface(Interface):
    signals: ClassVar[tuple[str, ...]] = ("Alert",)

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self._monitor = monitor

    @method
    async def subscribe(self, wanted: Str) -> Fd:
        """Events from now on, a line of JSON each, through the descriptor; closing it ends that."""
        return self._monitor.subscribe(parsed(wanted, EventFilter, "wanted"))

    @method
    async def recent(self, wanted: Str) -> Str:
        """Events of late, by call, session, process, kind or time, as JSON."""
        return to_json(self._monitor.recent(parsed(wanted, EventFilter, "wanted")))

    @method
    async def alerts(self, wanted: Str) -> Str:
        """Alerts of late, as JSON."""
        return to_json(self._monitor.alerts(parsed(wanted, AlertFilter, "wanted")))

    @method
    async def trace(self, request: Str) -> Str:
        """What one of the caller's calls did, as JSON; to root, anybody's."""
        return to_json(self._monitor.trace(parsed(request, TraceRequest, "request"), caller().uid))

    @method
    async def reload(self) -> Str:
        """Read the rules anew; bad ones change nothing."""
        return to_json(self._monitor.reload())

    @method
    async def rules(self) -> Str:
        """The rules in force, and how often each held, as JSON."""
        return to_json(self._monitor.rules())

    @method
    async def stats(self) -> Str:
        """Everything that is counted, as JSON."""
        return to_json(self._monitor.stats())

    @method
    async def metrics(self) -> Str:
        """The same for Prometheus, in its text format."""
        return self._monitor.metrics()

    @method
    async def status(self) -> Str:
        """What the monitor is doing, in numbers, as JSON."""
        return to_json(self._monitor.status())
