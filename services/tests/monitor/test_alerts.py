"""Alerts: once for the same, kept over a restart, never in the way."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from monitor.events import BEGIN_NS, CALL, RULES, happened, x

from clawos.monitor.alerts import FILE_BYTES_MAX, KEPT_MAX, PER_SECOND, Alert, Alerts
from clawos.monitor.detect.files import load
from clawos.monitor.detect.ruleset import Compiled

SECOND = 1_000_000_000
RULE_SET = {compiled.rule.id: compiled for compiled in load([RULES]).rules}


def rule(name: str) -> Compiled:
    return RULE_SET[name]


def raised(alerts: Alerts, name: str = "miner", second: float = 0, **more: Any) -> Alert | None:
    event = x("xmrig", time_ns=BEGIN_NS + int(second * SECOND), **more)
    return alerts.raised(rule(name), [event], 0)


def test_an_alert_has_words_evidence_and_whom(tmp_path: Path) -> None:
    alert = raised(Alerts(None), call=CALL)
    assert alert is not None
    assert alert.message == f"call {CALL} mines coins: xmrig"
    assert (alert.rule, alert.severity, alert.attack, alert.call) == ("miner", "high", ("T1496.001",), CALL)
    (evidence,) = msgspec.json.decode(alert.evidence)
    assert evidence["path"] == "/usr/bin/xmrig"
    assert evidence["kind"] == "exec"
    assert evidence["ancestors"][0] == "/usr/bin/bash"


def test_the_same_of_the_same_process_is_one_alert_for_a_while() -> None:
    alerts = Alerts(None)
    first = raised(alerts, tgid=1)
    assert first is not None
    assert raised(alerts, tgid=1, second=1) is None
    assert first.repeats == 1
    assert raised(alerts, tgid=2, second=1)
    assert raised(alerts, tgid=1, name="busy-loop", second=1)
    assert raised(alerts, tgid=1, second=61)


def test_a_flood_of_one_rule_pushes_no_other_alert_out() -> None:
    alerts = Alerts(None)
    kept = raised(alerts)
    for n in range(5000):
        raised(alerts, "user-discovery", n / 10, tgid=n)
    assert kept in alerts.find(limit=1000)
    assert len(alerts) <= 2 * KEPT_MAX


def test_alerts_of_one_rule_in_one_second_are_bounded_and_counted() -> None:
    alerts = Alerts(None)
    made = [raised(alerts, tgid=n) for n in range(PER_SECOND + 30)]
    assert sum(alert is not None for alert in made) == PER_SECOND
    assert alerts.left_out == 30
    assert raised(alerts, tgid=9999, second=1)


def test_they_are_found(tmp_path: Path) -> None:
    alerts = Alerts(None)
    raised(alerts, call=CALL)
    raised(alerts, "busy-loop", 1)
    assert [a.rule for a in alerts.find()] == ["miner", "busy-loop"]
    assert [a.rule for a in alerts.find(severity="high")] == ["miner"]
    assert [a.rule for a in alerts.find(call=CALL)] == ["miner"]
    assert [a.rule for a in alerts.find(rule="busy-loop")] == ["busy-loop"]
    assert [a.rule for a in alerts.find(limit=1)] == ["busy-loop"]


def test_they_outlive_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    before = Alerts(file)
    for n in range(3):
        alert = raised(before, tgid=n)
        assert alert is not None
        before.write(alert)
    with file.open("ab") as stream:
        stream.write(b'{"id":"torn')
    after = Alerts(file)
    after.load()
    assert [a.id for a in after.find()] == [a.id for a in before.find()]
    alert = raised(after, tgid=9)
    assert alert is not None
    after.write(alert)
    again = Alerts(file)
    again.load()
    assert len(again.find()) == 4, "what comes after a torn line stands on its own"


def test_the_file_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    alerts = Alerts(file)
    alert = raised(alerts)
    assert alert is not None
    alert.evidence = msgspec.Raw(msgspec.json.encode([{"text": "x" * 100_000}]))
    for _ in range(100):
        alerts.write(alert)
    assert file.with_suffix(".old").stat().st_size < FILE_BYTES_MAX + 200_000
    assert not file.exists() or file.stat().st_size < FILE_BYTES_MAX + 200_000


@contextmanager
def largest_file(limit_bytes: int) -> Iterator[None]:
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_takes_no_more_costs_the_file_only(tmp_path: Path, caplog: object) -> None:
    file = tmp_path / "alerts.jsonl"
    alerts = Alerts(file)
    alert = raised(alerts)
    assert alert is not None
    with largest_file(100):
        alerts.write(alert)
        alerts.write(alert)
    alerts.write(alert)
    again = Alerts(file)
    again.load()
    assert [one.id for one in again.find()] == [alert.id]


def test_lost_events_are_an_alert_too() -> None:
    lost = happened("lost", of="open", count=7)
    alert = Alerts(None).raised(rule("lost-events"), [lost], 0)
    assert alert is not None
    assert alert.message == "7 events of the kind open were lost"
