"""All that is counted: for the bus, and as metrics of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clawos.monitor import cgroups
from clawos.monitor.alerts import Alerts
from clawos.monitor.detect.language import SEVERITIES
from clawos.monitor.engine import Engine
from clawos.monitor.metrics import Metric, counter, gauge, of_this_process, one, resident_bytes, text
from clawos.monitor.ports import Counters, Source
from clawos.monitor.reactions import Reactions
from clawos.monitor.sandboxes import Sandboxes
from clawos.monitor.subscribe import Subscribers


class Figures:
    def __init__(
        self,
        engine: Engine,
        sandboxes: Sandboxes,
        alerts: Alerts,
        reactions: Reactions,
        subscribers: Subscribers,
        source: Source,
        counters: Counters,
    ) -> None:
        self._engine = engine
        self._sandboxes = sandboxes
        self._alerts = alerts
        self._reactions = reactions
        self._subscribers = subscribers
        self._source = source
        self._counters = counters

    def status(self) -> dict[str, Any]:
        return {
            "rules": len(self._engine.rules.rules),
            "rules_error": self._engine.rules_error,
            "events": sum(self._engine.counts.values()),
            "lost": sum(self._source.lost().values()),
            "alerts": self._alerts.counts.total(),
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
            "alerts_by_severity": dict(self._alerts.counts),
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

    def text(self) -> str:
        """In the text format of Prometheus."""
        return text(self._metrics())

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
            _by("severity", ((severity, self._alerts.counts[severity]) for severity in SEVERITIES)),
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
            "clawos_rules_refused",
            "1 when the last file of rules was refused.",
            one(bool(self._engine.rules_error)),
        )
        yield gauge("clawos_processes", "Processes in the tree.", one(len(engine.tree.processes)))
        yield counter(
            "clawos_processes_met_total", "Processes whose beginning was not told.", one(engine.tree.met)
        )
        yield gauge("clawos_subscribers", "Readers of the stream.", one(len(self._subscribers)))
        yield counter(
            "clawos_subscriber_lost_total",
            "Events that readers were too slow for.",
            one(self._subscribers.lost),
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
