"""The ring is full, its reader stopped or killed, a kind over its limit: whatever is not told is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from qa.monitor.conftest import push
from qa.vm.machine import Output

Run = Callable[..., Output]
OFFERED = 120_000
STOPPED_S = 10


def run(root: Run, arguments: str) -> dict[str, Any]:
    push(root, "in_cgroup", "losses")
    done = root(f"python3 -I /run/qa/monitor/losses.py {arguments}", 900)
    assert done.status == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.text)
    return found


@pytest.fixture(scope="session")
def told(root: Run) -> dict[str, Any]:
    return run(root, f"{OFFERED} {STOPPED_S}")


def test_a_stopped_reader_loses_what_the_ring_does_not_hold_and_it_is_counted(told: dict[str, Any]) -> None:
    stopped = told["stopped"]
    assert stopped["lost"] > 0
    assert stopped["limited"] == 0
    assert stopped["emitted"] + stopped["lost"] == stopped["offered"]
    assert stopped["read"] == stopped["emitted"]
    assert stopped["used"] > 0.9


def test_losses_are_counted_for_each_processor(told: dict[str, Any]) -> None:
    stopped = told["stopped"]
    assert sum(lost + limited for _, lost, limited in stopped["by_processor"]) == stopped["told"]


def test_once_it_reads_again_nothing_is_lost(told: dict[str, Any]) -> None:
    assert told["stopped"]["after"] == 1000
    assert told["stopped"]["lost_after"] == 0


def test_a_killed_reader_is_followed_by_the_next_without_a_gap(told: dict[str, Any]) -> None:
    killed = told["killed"]
    assert 0 < killed["first"] < killed["offered"]
    assert killed["first"] + killed["second"] == killed["offered"]


def test_a_kind_over_its_limit_is_kept_back_and_counted(unarmed: Run) -> None:
    limited = run(unarmed, "limited")
    assert limited["limited"] > 0
    assert limited["lost"] == 0
    assert limited["emitted"] + limited["limited"] == limited["offered"]
    assert limited["read"] == limited["emitted"]
