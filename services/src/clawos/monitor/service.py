"""The monitor's behaviour: takes events from the kernel side, judges them, answers what people and programs
ask. Knows no bus and no kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from clawos.core.errors import Busy, ClawError
from clawos.monitor import cgroups, state
from clawos.monitor.alerts import Alert, Alerts
from clawos.monitor.baseline import Baseline
from clawos.monitor.config import Config
from clawos.monitor.detect import files
from clawos.monitor.detect.language import SEVERITIES
from clawos.monitor.detect.matchers import Hit
from clawos.monitor.detect.ruleset import Compiled, RuleSet
from clawos.monitor.engine import Engine, lost_event
from clawos.monitor.errors import NoSuchCall, RulesInvalid
from clawos.monitor.event import boot_offset_ns, described, utc
from clawos.monitor.filters import AlertFilter, EventFilter, TraceRequest
from clawos.monitor.metrics import Metric, counter, gauge, of_this_process, one, resident_bytes, text
from clawos.monitor.ports import Agent, CallInfo, Counters, Isolator, Look, Source
from clawos.monitor.reactions import Reactions
from clawos.monitor.sandboxes import Sandbox, Sandboxes
from clawos.monitor.subscribe import Subscriber, told
from clawos.monitor.trace import Trace, connections_of, files_of, other_of, programs_of
from clawos.monitor.tree import Tree

log = logging.getLogger(__name__)

_IDLE_MAX = 5
"""Times idle_s: then we look for events as seldom as we ever do."""
_TEND_S = 1.0
_SAVE_S = 60.0
_ASK_S = 0.05
"""Between two questions to the isolator."""
_STARTING_S = 15.0
"""A call's first events come while the isolator still starts it: so long it may not know it yet."""
_ASK_AGAIN_S = 2.0
"""While calls run: have they ended?"""
_ANSWER_EVENTS_BYTES = 4 * 1024 * 1024
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
        self._counters = counters
        self._isolator = isolator
        self._state = state_dir / "known.json" if state_dir else None
        self._sandboxes = Sandboxes()
        self._alerts = Alerts(state_dir / "alerts.jsonl" if state_dir else None)
        tree = Tree(self._sandboxes, look, config.processes_max)
        self._engine = Engine(RuleSet(()), tree, self._sandboxes, Baseline(), self._hit)
        self._reactions = Reactions(
            isolator, agent, self._sandboxes, lambda alert: tell(msgspec.json.encode(alert).decode())
        )
        self._raised: Counter[str] = Counter()
        self._subscribers: set[Subscriber] = set()
        self._subscriber_lost = 0
        self._lost: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ask = asyncio.Event()
        self._isolator_answers = True
        self._rules_error = ""
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
            self._rules_error = error.message
            rules = files.load(self._config.rules[:1])
        rules.remember(known.first_seen)
        self._engine.use(rules)
        # What was lost before is not ours to tell, only what is lost from now on.
        self._lost = dict(self._source.lost())
        for work in (self._pump(), self._tend(), self._ask_isolator()):
            task = asyncio.create_task(work)
            task.add_done_callback(_end_with)
            self._tasks.append(task)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._drain()
        await self._reactions.close()
        for subscriber in tuple(self._subscribers):
            subscriber.close()
        await self._save()
        self._source.close()

    # What is asked

    def subscribe(self, wanted: EventFilter) -> int:
        """The read end of a stream of events. Raises Busy."""
        if len(self._subscribers) >= self._config.subscribers_max:
            raise Busy(
                f"{len(self._subscribers)} subscribers are there, and no more may be",
                "end one of them; see subscribers_max in /etc/clawos/monitor.toml",
            )
        subscriber = Subscriber(wanted, self._unsubscribed)
        self._subscribers.add(subscriber)
        self._engine.takers.add(subscriber)
        return subscriber.read_fd

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
        self._rules_error = ""
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
        return {
            "rules": len(self._engine.rules.rules),
            "rules_error": self._rules_error,
            "events": sum(self._engine.counts.values()),
            "lost": sum(self._source.lost().values()),
            "alerts": sum(self._raised.values()),
            "subscribers": len(self._subscribers),
            "processes": len(self._engine.tree.processes),
        }

    def stats(self) -> dict[str, Any]:
        """Everything that is counted."""
        return {
            **self.status(),
            "events_by_kind": {kind: n for kind, n in self._engine.counts.items() if n},
            "lost_by_kind": dict(self._source.lost()),
            "ring_used": round(self._source.used(), 4),
            "hits": dict(self._engine.hits),
            "alerts_by_severity": dict(self._raised),
            "alerts_left_out": self._alerts.left_out,
            "reactions": {f"{kind} {came}": n for (kind, came), n in self._reactions.counts.items()},
            "events_kept": len(self._engine.recent),
            "processes_met": self._engine.tree.met,
            "calls": [
                {
                    "call": used.name,
                    "tool": self._sandboxes.of(used.name).tool,
                    "cpu_s": used.cpu_s,
                    "memory_bytes": used.memory_bytes,
                }
                for used in cgroups.sandboxes()
            ],
            "services": [
                {"service": used.name, "cpu_s": used.cpu_s, "memory_bytes": used.memory_bytes}
                for used in cgroups.services()
            ],
            "resident_bytes": resident_bytes(),
            "tools_learnt": len(self._engine.baseline),
        }

    def metrics(self) -> str:
        return text(self._metrics())

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
                self._ask.set()
        return len(events)

    def _drain(self) -> None:
        while self._take() >= self._config.batch:
            pass

    def _hit(self, compiled: Compiled, hit: Hit) -> None:
        alert = self._alerts.raised(compiled, hit, boot_offset_ns())
        if alert is None:
            return
        self._raised[alert.severity] += 1
        if alert.call and compiled.rule.react != ("log",):
            self._sandboxes.of(alert.call).alerted = True
        self._reactions.start(alert, compiled.rule.react, self._written)

    def _written(self, alert: Alert) -> None:
        if alert.rank:
            self._alerts.write(alert)
        for subscriber in tuple(self._subscribers):
            subscriber.take_alert(alert)

    def _unsubscribed(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        self._engine.takers.discard(subscriber)
        self._subscriber_lost += subscriber.lost

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

    async def _ask_isolator(self) -> None:
        """Whose calls are these, and which of them are over?"""
        wait_s = _ASK_S
        while True:
            if self._sandboxes.untold:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _TEND_S)
            else:
                wait_s = _ASK_S
                try:
                    async with asyncio.timeout(_ASK_AGAIN_S):
                        await self._ask.wait()
                except TimeoutError:
                    if not self._sandboxes.running():
                        continue
            self._ask.clear()
            try:
                calls = await self._isolator.calls()
            except ClawError as error:
                if self._isolator_answers:
                    log.warning("the isolator does not say whose calls run: %s", error.message)
                self._isolator_answers = False
                await asyncio.sleep(_ASK_AGAIN_S)
                continue
            self._isolator_answers = True
            self._told({call.id: call for call in calls})

    def _told(self, calls: dict[str, CallInfo]) -> None:
        before_s = time.monotonic() - _STARTING_S
        for call in tuple(self._sandboxes.untold):
            if (info := calls.get(call)) is not None:
                sandbox = self._sandboxes.tell(call, info.tool, info.user, info.session)
                events = self._engine.recent.of_call(call)
                self._engine.told(sandbox, events[-1] if events else None)
            elif self._sandboxes.of(call).met_s < before_s:
                # None of the isolator's: somebody else made a cgroup of that name.
                self._sandboxes.untold.discard(call)
        for sandbox in self._sandboxes.running():
            info = calls.get(sandbox.id)
            if info.ended if info is not None else sandbox.met_s < before_s:
                self._over(sandbox, learn=info is not None)

    def _over(self, sandbox: Sandbox, *, learn: bool) -> None:
        sandbox.ended = True
        self._engine.baseline.over(sandbox.id, sandbox.tool, learn=learn and not sandbox.alerted)

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

    def _metrics(self) -> Iterator[Metric]:
        engine, source = self._engine, self._source
        severities = {compiled.rule.id: compiled.rule.severity for compiled in engine.rules.rules}
        yield counter(
            "clawos_events_total", "Events taken from the kernel.", _by("kind", engine.counts.items())
        )
        yield counter(
            "clawos_events_lost_total", "Events that the kernel lost.", _by("kind", source.lost().items())
        )
        yield counter(
            "clawos_events_failed_total", "Events passed over for a mistake of ours.", one(engine.failed)
        )
        yield gauge("clawos_ring_used_ratio", "The part of the ring that is taken.", one(source.used()))
        yield counter(
            "clawos_rule_hits_total",
            "How often a rule held, repeats too.",
            (
                ({"rule": rule, "severity": severity}, engine.hits.get(rule, 0))
                for rule, severity in severities.items()
            ),
        )
        yield counter(
            "clawos_alerts_total",
            "Alerts, each repeated one once.",
            _by("severity", ((severity, self._raised[severity]) for severity in SEVERITIES)),
        )
        yield counter(
            "clawos_alerts_left_out_total",
            "Alerts of rules that hit too often in a second.",
            one(self._alerts.left_out),
        )
        yield counter(
            "clawos_reactions_total",
            "What was done about alerts.",
            (
                ({"kind": kind, "result": result}, self._reactions.counts[kind, result])
                for kind in ("log", "alert", "kill", "freeze")
                for result in ("done", "failed")
            ),
        )
        yield gauge("clawos_rules", "Rules in force.", one(len(engine.rules.rules)))
        yield gauge(
            "clawos_rules_refused", "1 when the last file of rules was refused.", one(bool(self._rules_error))
        )
        yield gauge("clawos_processes", "Processes in the tree.", one(len(engine.tree.processes)))
        yield counter(
            "clawos_processes_met_total", "Processes whose beginning was not told.", one(engine.tree.met)
        )
        yield gauge("clawos_subscribers", "Readers of the stream.", one(len(self._subscribers)))
        yield counter(
            "clawos_subscriber_lost_total",
            "Events that readers were too slow for.",
            one(self._subscriber_lost + sum(subscriber.lost for subscriber in self._subscribers)),
        )
        yield from self._usage()
        yield counter(
            "clawos_xdp_total",
            "Packets at the XDP programs, by what became of them.",
            (
                ({"program": program, "counter": what}, packets)
                for (program, what), packets in self._counters.xdp().items()
            ),
        )
        yield counter(
            "clawos_denied_total",
            "How often a rule of the enforcement said no.",
            _by("rule", self._counters.denials().items()),
        )
        yield from of_this_process()

    def _usage(self) -> Iterator[Metric]:
        services, sandboxes = cgroups.services(), cgroups.sandboxes()
        yield counter(
            "clawos_service_cpu_seconds_total",
            "CPU time of a service.",
            _by("service", ((used.name, used.cpu_s) for used in services)),
        )
        yield gauge(
            "clawos_service_memory_bytes",
            "Memory of a service.",
            _by("service", ((used.name, used.memory_bytes) for used in services)),
        )
        yield gauge("clawos_sandboxes", "Calls that run.", one(len(sandboxes)))
        labels = {
            used.name: {"call": used.name, "tool": self._sandboxes.of(used.name).tool} for used in sandboxes
        }
        yield counter(
            "clawos_sandbox_cpu_seconds_total",
            "CPU time of a call that runs.",
            ((labels[used.name], used.cpu_s) for used in sandboxes),
        )
        yield gauge(
            "clawos_sandbox_memory_bytes",
            "Memory of a call that runs.",
            ((labels[used.name], used.memory_bytes) for used in sandboxes),
        )


def _by(label: str, pairs: Any) -> Iterator[tuple[dict[str, str], float]]:
    return (({label: name}, value) for name, value in pairs)


def _end_with(task: asyncio.Task[None]) -> None:
    """A monitor that does only a part of its work is worse than one that systemd starts again."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the monitor's work failed", exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)
