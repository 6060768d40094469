"""claw's commands about what happens on the machine."""

from __future__ import annotations

import json
import pwd

import pytest
from claw.conftest import Run

pytestmark = pytest.mark.usefixtures("services")

CALL = "0123456789abcdef"


def test_events_are_shown_harmless_on_one_line_each(claw: Run) -> None:
    shown = claw("events")
    assert (shown.returncode, shown.stderr) == (0, "")
    head, line = shown.stdout.splitlines()
    assert head.split() == ["TIME", "CALL", "PROCESS", "PROGRAM", "EVENT", "WHAT"]
    assert line.split() == ["12:00:00.000", CALL, "77", "id", "exec", "id", "-u?[31m"]
    (event,) = json.loads(claw("events", "--json").stdout)
    assert event["args"] == ["id", "-u\x1b[31m"]
    assert json.loads(claw("events", "--json", "--call", "none").stdout) == []


def test_events_are_followed_with_alerts_and_what_was_lost(claw: Run) -> None:
    lines = claw("events", "--follow").stdout.splitlines()
    assert len(lines) == 4
    assert "high: the tool shell.run became /bin/sh" in lines[2]
    assert lines[3].endswith("3 of subscriber")
    kinds = [json.loads(line)["kind"] for line in claw("events", "--follow", "--json").stdout.splitlines()]
    assert kinds == ["exec", "alert", "lost"]


def test_alerts_say_what_was_done(claw: Run) -> None:
    first, second = claw("alerts").stdout.splitlines()
    assert first == "2026-11-21T12:00:00Z  high      the tool shell.run became /bin/sh"
    assert second.strip() == f"reverse-shell, T1059.004, call {CALL}, kill done, 2 times more"
    assert claw("alerts", "--severity", "critical").stdout == "no alerts\n"
    assert json.loads(claw("alerts", "--json").stdout)[0]["rule"] == "reverse-shell"


def test_rules_are_listed_and_a_bad_file_is_named(claw: Run) -> None:
    assert claw("rules").stdout.splitlines()[1].split() == ["reverse-shell", "high", "T1059", "log", "3"]
    failed = claw("rules", "--reload")
    assert failed.returncode == 1
    assert "x.toml, line 3" in failed.stderr
    error = json.loads(claw("rules", "--reload", "--json").stdout)["error"]
    assert error["name"] == "RulesInvalid"


def test_top_shows_shares_and_rates(claw: Run) -> None:
    lines = claw("top").stdout.splitlines()
    assert "events/s, 0 lost, ring 1 %, 1 alerts, 9 processes" in lines[0]
    assert lines[2].split() == ["SERVICE", "CPU", "MEMORY"]
    found = json.loads(claw("top", "--json").stdout)
    assert 300 < found["events_per_s"] <= 1000
    assert 20 < found["calls"][0]["cpu_percent"] <= 50
    assert found["calls"][0]["tool"] == "shell.run"


def test_metrics_are_printed_as_they_are(claw: Run) -> None:
    assert claw("metrics").stdout == "# TYPE clawos_rules gauge\nclawos_rules 3\n"


def test_frozen_sessions_are_listed_and_thawed(claw: Run) -> None:
    failed = claw("session", "thaw", "beef")
    assert failed.returncode == 1
    assert "there is no such session" in failed.stderr
    assert claw("session", "list").stdout.splitlines()[1].split()[:3] == ["f00d", "root", "default"]
    assert claw("session", "thaw", "f00d").stdout == "session f00d may make calls again\n"
    assert claw("session", "list").stdout == "no session is frozen\n"
    assert json.loads(claw("session", "list", "--json").stdout) == []


def test_a_filter_that_is_none_is_a_sentence(claw: Run) -> None:
    failed = claw("events", "--kind", "nonsense")
    assert failed.returncode == 1
    assert "there is no kind 'nonsense'" in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [["events"], ["events", "--follow"], ["alerts"], ["rules"], ["top"], ["metrics"], ["session", "list"]],
)
def test_an_ordinary_user_is_told_to_be_root(claw: Run, arguments: list[str]) -> None:
    failed = claw(*arguments, uid=pwd.getpwnam("nobody").pw_uid)
    assert failed.returncode == 1
    assert "as root" in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [["events", "--limit", "x"], ["alerts", "--severity", "bad"], ["metrics", "--json"], ["session"]],
)
def test_wrong_usage_is_2(claw: Run, arguments: list[str]) -> None:
    assert claw(*arguments).returncode == 2
