"""The tables of acts and the scorer of qa/detect."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qa.detect.ordinary import CALLS
from qa.detect.page import PAGE, page
from qa.detect.score import LATEST_S, Alert, judge, related, share
from qa.detect.table import CONTROL, SUITES, Act, load

ACT = Act("x", "does", "script", "check", techniques=("T1070.003",))
RUN: dict[str, Any] = {"id": "x", "cgroup": 7, "happened": True, "ended_ns": 10**9}
ALERT = Alert("history", "medium", ("T1070.003",), 7, 10**9)


@pytest.mark.parametrize("suite", SUITES)
def test_every_act_of_a_suite_is_run_or_has_a_reason(suite: str) -> None:
    table = load(suite)
    run = [act.id for act in table.act]
    not_run = [one for group in table.not_run for one in group.ids.split()]
    assert len({*run, *not_run}) == len(run) + len(not_run) == SUITES[suite]
    assert all(len(why) > 20 for why in table.reasons().values())


@pytest.mark.parametrize("suite", [*SUITES, CONTROL])
def test_an_act_says_what_it_does_and_how_one_sees_that_it_did(suite: str) -> None:
    for act in load(suite).act:
        assert act.does, act.id
        assert act.check, act.id
        assert bool(act.techniques) == (suite != CONTROL), act.id
        assert all(re.fullmatch(r"T\d{4}(\.\d{3})?", one) for one in act.techniques), act.id


@pytest.mark.parametrize(("tool", "arguments"), CALLS)
def test_an_ordinary_call_has_the_arguments_of_its_tool(tool: str, arguments: dict[str, str]) -> None:
    wanted = tomllib.loads(Path("policies/tools", f"{tool}.toml").read_text())["arguments"]
    assert set(wanted["required"]) <= set(arguments) <= set(wanted["properties"])


def test_a_technique_is_related_to_its_parent_and_its_parts() -> None:
    assert related("T1070.003", "T1070.003")
    assert related("T1070", "T1070.003")
    assert related("T1070.003", "T1070")
    assert not related("T1070.003", "T1070.004")
    assert not related("T107", "T1070")


@pytest.mark.parametrize(
    ("alert", "fits", "other"),
    [
        (ALERT, ("history",), ()),
        (replace(ALERT, cgroup=8), (), ()),
        (replace(ALERT, severity="info"), (), ()),
        (replace(ALERT, techniques=("T1003",)), (), ("history",)),
        (replace(ALERT, time_ns=10**9 + int(LATEST_S * 1e9) + 1), (), ("history",)),
    ],
)
def test_an_act_is_found_by_its_technique_in_its_cgroup_and_in_time(
    alert: Alert, fits: tuple[str, ...], other: tuple[str, ...]
) -> None:
    verdict = judge(ACT, RUN, [alert])
    assert (verdict.fitting, verdict.other) == (fits, other)


def test_the_share_counts_only_what_took_place() -> None:
    found, missed = judge(ACT, RUN, [ALERT]), judge(ACT, RUN, [])
    never = judge(ACT, msgspec.json.decode(b'{"cgroup": 7, "happened": false, "why": "no"}'), [])
    assert share([found, missed, never]) == 0.5
    assert share([never]) == 0.0


def test_the_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text() == page(), "run python -m qa.detect.page"
