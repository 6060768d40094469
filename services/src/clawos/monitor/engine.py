"""What is done with each event: the tree, the rules, the baseline, the store, the subscribers.

Once for each event, a hundred thousand times in a second: no call, object or copy that is not needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from clawos.monitor.baseline import FEATURES, Baseline
from clawos.monitor.detect.fields import OWN
from clawos.monitor.detect.matchers import Hit
from clawos.monitor.detect.ruleset import ANCHORED, WRITE, Compiled, RuleSet
from clawos.monitor.event import Event
from clawos.monitor.recent import Recent
from clawos.monitor.sandboxes import Sandbox, Sandboxes
from clawos.monitor.tree import LIFE, Tree

log = logging.getLogger(__name__)

OnHit = Callable[[Compiled, Hit], None]


class Taker(Protocol):
    def take(self, event: Event) -> None:
        """Of a subscriber: never waits."""
        ...


class Engine:
    def __init__(
        self, rules: RuleSet, tree: Tree, sandboxes: Sandboxes, baseline: Baseline, on_hit: OnHit
    ) -> None:
        self.rules = rules
        self.rules_error = ""
        """Why the administrator's rules are not in force."""
        self.tree = tree
        self.baseline = baseline
        self.recent = Recent()
        self.counts: dict[str, int] = dict.fromkeys(OWN, 0)
        self.hits: dict[str, int] = {}
        self.failed = 0
        """Events that we made a mistake with."""
        self.takers: set[Taker] = set()
        self._sandboxes = sandboxes
        self._on_hit = on_hit

    def feed(self, events: Iterable[Event]) -> None:
        """Take a batch."""
        tree, counts, tables, baseline = self.tree, self.counts, self.rules.tables, self.baseline
        processes, keep, takers = tree.processes, self.recent.add, self.takers
        for event in events:
            try:
                kind, call, own = event.kind, event.call, event.own
                counts[kind] += 1
                process = processes.get((event.tgid, event.start_ns))
                if process is None or (call and (process.sandbox is None or process.sandbox.id != call)):
                    process = tree.of(event)
                event.process = process
                if kind in LIFE:
                    LIFE[kind](tree, event, process)
                # As RuleSet.candidates has it.
                dispatch = tables.get(kind if kind != "open" or not own["write"] else WRITE)
                if dispatch is not None:
                    if kind == "exec":
                        asked = dispatch.of_exec(own["path"], event.comm)
                    elif kind in ANCHORED:
                        asked = dispatch.of_path(own["path"])
                    else:
                        asked = dispatch.always
                    for test, compiled, step in asked:
                        if test(event):
                            self._met(compiled, step, event)
                keep(event)
                if call and kind in FEATURES and baseline.saw(event):
                    self._judge(event)
                if takers:
                    for taker in tuple(takers):
                        taker.take(event)
            except Exception:
                self._failed(event)

    def _failed(self, event: Event) -> None:
        """A mistake of ours must not end the watch: the event is passed over, and said to be."""
        if not self.failed:
            log.exception("an event of the kind %s was passed over; more are only counted", event.kind)
        self.failed += 1

    def _met(self, compiled: Compiled, step: int, event: Event) -> None:
        hit = compiled.matcher.take(step, event)
        if hit is not None:
            name = compiled.rule.id
            self.hits[name] = self.hits.get(name, 0) + 1
            self._on_hit(compiled, hit)

    def _judge(self, event: Event) -> None:
        assert event.process is not None
        sandbox = event.process.sandbox
        if sandbox is not None and sandbox.tool:
            self._tell_anomaly(sandbox, event)

    def told(self, sandbox: Sandbox, last: Event | None) -> None:
        """The isolator has said which tool a call is of: what it did meanwhile is judged now."""
        if last is not None:
            self._tell_anomaly(sandbox, last)

    def _tell_anomaly(self, sandbox: Sandbox, event: Event) -> None:
        judged = self.baseline.judge(sandbox.id, sandbox.tool)
        if judged is None:
            return
        score, reasons = judged
        self.feed([_of(event, "anomaly", {"score": score, "reasons": reasons})])

    def use(self, rules: RuleSet) -> None:
        """Other rules from now on. What those with `first` have seen goes along."""
        rules.remember(self.rules.first_seen())
        self.rules = rules


def _of(event: Event, kind: str, own: dict[str, object]) -> Event:
    """An event of our own about the process of another one."""
    return Event(
        kind,
        event.time_ns,
        event.call,
        event.cgroup,
        event.pid,
        event.tgid,
        event.start_ns,
        event.ppid,
        event.parent_start_ns,
        event.uid,
        event.gid,
        event.comm,
        own,
        event.process,
    )


def lost_event(kind: str, count: int, time_ns: int) -> Event:
    """That the kernel side could not tell of so many."""
    return Event("lost", time_ns, "", 0, 0, 0, 0, 0, 0, 0, 0, "", {"of": kind, "count": count})
