"""Are the acts of others' suites found? All of them are done first; then one test each tells of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from qa.detect.follow import followed_cgroup
from qa.detect.guest import Run, verdicts
from qa.detect.score import Verdict, share, table
from qa.detect.table import CONTROL, SUITES, load

FOUND_MIN = 0.95
HAPPENED_MIN = 0.97
"""Of what the tables say can be run."""
OUT = Path("build/detect")

Judged = Callable[[str], list[Verdict]]


@pytest.fixture(scope="module")
def judged(root: Run) -> Iterator[Judged]:
    with followed_cgroup(root, "qa-detect") as parent:

        @cache
        def judge(suite: str) -> list[Verdict]:
            found = verdicts(root, load(suite).act, parent)
            OUT.mkdir(parents=True, exist_ok=True)
            (OUT / f"{suite}.txt").write_text(table(found, load(suite).reasons()) + "\n")
            return found

        yield judge


@pytest.mark.parametrize("suite", SUITES)
def test_the_acts_take_place(judged: Judged, suite: str) -> None:
    """The positive control of what is found: what did not happen counts for nothing."""
    found = judged(suite)
    failed = {verdict.act.id: verdict.why for verdict in found if not verdict.happened}
    assert len(failed) <= (1 - HAPPENED_MIN) * len(found), failed


@pytest.mark.parametrize("suite", SUITES)
def test_nearly_all_of_them_are_found(judged: Judged, suite: str) -> None:
    found = judged(suite)
    missed = {v.act.id: v.other for v in found if v.happened and not v.fitting}
    assert share(found) >= FOUND_MIN, f"{share(found):.1%}; missed, and which rules told of it: {missed}"


def test_ordinary_work_brings_no_alert(judged: Judged) -> None:
    found = judged(CONTROL)
    assert all(verdict.happened for verdict in found), [v.why for v in found if not v.happened]
    assert {verdict.act.id: verdict.other for verdict in found if verdict.other} == {}
