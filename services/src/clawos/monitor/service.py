"""The monitor's behaviour: takes events from the kernel side, judges them, answers what people and programs
ask. Knows no bus and no kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from clawos.monitor import state
from clawos.monitor.alerts import Alert, Alerts
from clawos.monitor.baseline import Baseline
from clawos.monitor.calls import Calls
from clawos.monitor.config import Config
from clawos.monitor.detect import files
from clawos.monitor.detect.matchers import Hit
from clawos.monitor.detect.ruleset import Compiled, RuleSet
from clawos.monitor.engine import Engine, lost_event
from clawos.monitor.errors import NoSuchCall, RulesInvalid
from clawos.monitor.event import boot_offset_ns, described, utc
from clawos.monitor.figures import Figures
from clawos.monitor.filters import AlertFilter, EventFilter, TraceRequest
from clawos.monitor.ports import Agent, Counters, Isolator, Look, Source
from clawos.monitor.reactions import Reactions
from clawos.monitor.sandboxes import Sandbox, Sandboxes
from clawos.monitor.subscribe import Subscribers, told
from clawos.monitor.trace import Trace, connections_of, files_of, other_of, programs_of
from clawos.monitor.tree import Tree

log = logging.getLogger(__name__)

_IDLE_MAX = 5
"""Times idle_s: then we look for events as seldom as we ever do."""
_TEND_S = 1.0
_SAVE_S = 60.0
_ANYBODY = 0


class Monitor:
    def __init__(
        self,
        config: Config,
        source: Source,
        counters: Counters,
        isolator: Isolator,
        agent: Agent,
        look: Look,
        tell: Callable[[str], None],
        state_dir: Path | None,
    ) -> None:
        """`tell`: send an alert's JSON to whoever listens on the bus."""
        self._config = config
        self._source = source
        self._state = state_dir / "known.json" if state_dir else None
        self._sandboxes = Sandboxes()
        self._alerts = Alerts(state_dir / "alerts.jsonl" if state_dir else None)
        tree = Tree(self._sandboxes, look, config.processes_max)
        self._engine = Engine(RuleSet(()), tree, self._sandboxes, Baseline(), self._hit)
        self._reactions = Reactions(
            isolator, agent, self._sandboxes, lambda alert: tell(msgspec.json.encode(alert).decode())
        )
        self._calls = Calls(isolator, self._sandboxes, self._engine)
        self._subscribers = Subscribers(config.subscribers_max, self._engine.takers)
        self._figures = Figures(
            self._engine, self._sandboxes, self._alerts, self._reactions, self._subscribers, source, counters
        )
        self._lost: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._saved = time.monotonic()

    # Life

    def start(self) -> None:
        """Begin to take events. Bad rules of the administrator's leave those that were shipped in force."""
        self._alerts.load()
        known = state.read(self._state) if self._state else state.Known()
        self._engine.baseline.read(known.tools)
        try:
            rules = files.load(self._config.rules)
        except RulesInvalid as error:
            log.error("%s", error.message)
            self._engine.rules_error = error.message
            rules = files.load(self._config.rules[:1])
        rules.remember(known.first_seen)
        self._engine.use(rules)
        # What was lost before is not ours to tell, only what is lost from now on.
        self._lost = dict(self._source.lost())
        for work in (self._pump(), self._tend(), self._calls.ask()):
            task = asyncio.create_task(work)
            task.add_done_callback(_end_with)
            self._tasks.append(task)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._drain()
        await self._reactions.close()
        self._subscribers.close()
        await self._save()
        self._source.close()

    # What is asked

    def subscribe(self, wanted: EventFilter) -> int:
        """The read end of a stream of events. Raises Busy."""
        return self._subscribers.add(wanted)

    def recent(self, wanted: EventFilter) -> list[dict[str, Any]]:
        """Events of late, the newest last."""
        offset_ns = boot_offset_ns()
        found = self._engine.recent.find(wanted.test(offset_ns), wanted.limit, wanted.call)
        return [described(event, offset_ns) for event in found]

    def alerts(self, wanted: AlertFilter) -> list[dict[str, object]]:
        return [
            told(alert)
            for alert in self._alerts.find(
                severity=wanted.severity,
                call=wanted.call,
                session=wanted.session,
                rule=wanted.rule,
                limit=wanted.limit,
            )
        ]

    def trace(self, request: TraceRequest, uid: int) -> Trace:
        """What a call did; of somebody else's only root is told. Raises NoSuchCall."""
        sandbox = self._traced(request, uid)
        offset_ns = boot_offset_ns()
        events = self._engine.recent.of_call(sandbox.id)
        return Trace(
            call=sandbox.id,
            tool=sandbox.tool,
            session=sandbox.session,
            user=sandbox.user,
            began=utc(events[0].time_ns, offset_ns) if events else "",
            programs=programs_of(events, offset_ns),
            files=files_of(events),
            connections=connections_of(events),
            other=other_of(events),
            alerts=tuple(
                {"rule": alert.rule, "severity": alert.severity, "message": alert.message}
                for alert in self._alerts.find(call=sandbox.id)
            ),
            complete=self._engine.recent.is_complete(sandbox.id),
        )

    def reload(self) -> dict[str, Any]:
        """Read the rules anew. Raises RulesInvalid; then those that were in force still are."""
        self._engine.use(files.load(self._config.rules))
        self._engine.rules_error = ""
        log.info("%d rules are in force", len(self._engine.rules.rules))
        return {"rules": len(self._engine.rules.rules)}

    def rules(self) -> list[dict[str, Any]]:
        return [
            {
                "id": compiled.rule.id,
                "title": compiled.rule.title,
                "severity": compiled.rule.severity,
                "attack": compiled.rule.attack,
                "react": compiled.rule.react,
                "hits": self._engine.hits.get(compiled.rule.id, 0),
            }
            for compiled in self._engine.rules.rules
        ]

    def status(self) -> dict[str, Any]:
        return self._figures.status()

    def stats(self) -> dict[str, Any]:
        """Everything that is counted."""
        return self._figures.stats()

    def metrics(self) -> str:
        """The same in the text format of Prometheus."""
        return self._figures.text()

    # Events

    async def _pump(self) -> None:
        """Take what the ring has. Events that come in floods wake nobody: we look for them, the more seldom
        the longer there were none."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._source.fileno(), ready.set)
        wait_s = self._config.idle_s
        try:
            while True:
                taken = self._take()
                if taken >= self._config.batch:
                    await asyncio.sleep(0)  # whatever else there is has its turn
                    continue
                wait_s = self._config.idle_s if taken else min(wait_s * 2, _IDLE_MAX * self._config.idle_s)
                ready.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await ready.wait()
        finally:
            loop.remove_reader(self._source.fileno())

    def _take(self) -> int:
        """One batch. Returns how many there were."""
        events = self._source.read(self._config.batch)
        if events:
            self._engine.feed(events)
            if self._sandboxes.untold:
                self._calls.want()
        return len(events)

    def _drain(self) -> None:
        while self._take() >= self._config.batch:
            pass

    def _hit(self, compiled: Compiled, hit: Hit) -> None:
        alert = self._alerts.raised(compiled, hit, boot_offset_ns())
        if alert is None:
            return
        if alert.call and compiled.rule.react != ("log",):
            self._sandboxes.of(alert.call).alerted = True
        self._reactions.start(alert, compiled.rule.react, self._written)

    def _written(self, alert: Alert) -> None:
        if alert.rank:
            self._alerts.write(alert)
        self._subscribers.take_alert(alert)

    # What is done beside

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_TEND_S)
            for kind, count in self._source.lost().items():
                if (more := count - self._lost.get(kind, 0)) > 0:
                    self._engine.feed([lost_event(kind, more, time.clock_gettime_ns(time.CLOCK_BOOTTIME))])
                self._lost[kind] = count
            if time.monotonic() - self._saved > _SAVE_S:
                await self._save()

    async def _save(self) -> None:
        self._saved = time.monotonic()
        first_seen = self._engine.rules.first_seen()
        if self._state is None or not (self._engine.baseline.is_changed or any(first_seen.values())):
            return
        self._engine.baseline.is_changed = False
        known = state.Known(tools=self._engine.baseline.written(), first_seen=first_seen)
        data = msgspec.json.encode(known)
        try:
            # Off the loop: a disk that syncs slowly must not hold events up.
            await asyncio.to_thread(state.write, self._state, data)
        except OSError as error:
            log.error("what was learnt cannot be kept: %s", error.strerror)
            self._engine.baseline.is_changed = True

    def _traced(self, request: TraceRequest, uid: int) -> Sandbox:
        if request.call == "last":
            sandbox = self._sandboxes.newest_of(None if uid == _ANYBODY else uid, request.session)
        else:
            sandbox = self._sandboxes.find(request.call)
        if sandbox is None or (uid != _ANYBODY and sandbox.user != uid):
            raise NoSuchCall(
                "no call of yours is known"
                if request.call == "last"
                else f"you have no call {request.call!r}, or it was long ago",
                "the monitor remembers the calls of late",
            )
        return sandbox


def _end_with(task: asyncio.Task[None]) -> None:
    """A monitor that does only a part of its work is worse than one that systemd starts again."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the monitor's work failed", exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)
