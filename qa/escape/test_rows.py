"""The must-fail list, row by row: refused inside, and the same act outside as the positive control."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from clawos.isolator.seccomp.profile import load
from qa.escape import share
from qa.escape.conftest import Probed
from qa.escape.guest import Guest
from qa.escape.rows import ROWS, Row

SECCOMP = Path("policies/seccomp")
CALLS = [row for row in ROWS if row.group == "calls"]
# The kernel lets uretprobe and uprobe past every filter, for its own trampolines make them in a program's
# name; from anywhere else they are answered by SIGILL.
PAST_EVERY_FILTER = {335, 336}
PAUSE = 34


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(probed: Probed, row: Row) -> None:
    inside, outside = probed(row.group)
    if row.outside:
        assert outside[row.act] in row.outside, "positive control"
    assert outside[row.act] != inside[row.act], "positive control"
    assert inside[row.act] == row.inside


@pytest.fixture(scope="session")
def under_python(python_guest: Guest) -> dict[str, str]:
    return python_guest.probe_inside("calls", {})


@pytest.mark.parametrize("row", CALLS, ids=str)
def test_row_under_the_python_profile(under_python: dict[str, str], row: Row) -> None:
    """The control is `test_row`'s. What that profile does not even name is unknown to it."""
    assert under_python[row.act] in (row.inside, "ENOSYS")


@pytest.mark.parametrize("profile", ["shell", "python"])
def test_calls_that_nobody_named(guest: Guest, python_guest: Guest, profile: str) -> None:
    known = share.numbers()
    named = {known[name] for name in load(SECCOMP, profile, platform.machine()) if name in known}
    numbers = [n for n in range(share.NUMBERS) if n not in named | PAST_EVERY_FILTER]
    facts = {"unnamed": ranges(numbers)}
    inside = (python_guest if profile == "python" else guest).probe_inside("unnamed", facts)
    assert len(inside) == len(numbers)
    assert {number: answer for number, answer in inside.items() if answer != "ENOSYS"} == {}
    if profile == "shell":
        facts = {"unnamed": ranges([n for n in numbers if n != PAUSE])}
        nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
        outside = guest.probe_outside("unnamed", facts, nobody)
        reached = [number for number, answer in outside.items() if answer != "ENOSYS"]
        assert len(reached) > 100, "positive control: without the filter the kernel has an opinion on them"


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
