"""Roots made ahead: made once, made anew when what they show is another, never one plan's for another."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clawos.isolator.errors import SandboxRefused
from clawos.isolator.plan import Bind, Dir, File, Plan
from clawos.isolator.planner import Planner
from clawos.isolator.roots import _KEPT_MAX, Roots
from clawos.isolator.spec import parse

from .conftest import spec_text


class Builder:
    """Roots that are descriptors of files, named by their order."""

    def __init__(self) -> None:
        self.built: list[Plan] = []

    async def __call__(self, plan: Plan) -> int:
        self.built.append(plan)
        await asyncio.sleep(0)
        fd = os.memfd_create(f"root-{len(self.built)}")
        os.write(fd, str(len(self.built)).encode())
        return fd


@pytest.fixture
def builder() -> Builder:
    return Builder()


@pytest.fixture
def roots(builder: Builder) -> Iterator[Roots]:
    before = descriptors()
    made = Roots(builder)
    yield made
    made.close()
    assert descriptors() == before


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def plan(planner: Planner) -> Plan:
    return planner.plan(parse(spec_text("/usr/bin/true")))


async def got(roots: Roots, plan: Plan) -> int:
    """Which root it is."""
    fd = await roots.get(plan)
    number = int(os.pread(fd, 10, 0))
    os.close(fd)
    return number


async def test_what_is_the_same_is_made_once(roots: Roots, builder: Builder, plan: Plan) -> None:
    assert await got(roots, plan) == 1
    other_call = replace(plan, argv=("/usr/bin/false",), env={"A": "b"}, cwd="/tmp", wall_s=1, tool="other")
    assert await got(roots, other_call) == 1
    assert builder.built == [plan]


async def test_another_plan_has_another_root(roots: Roots, plan: Plan) -> None:
    changes = [
        replace(plan, root_bytes=plan.root_bytes + 1),
        replace(plan, operations=plan.operations[:-1]),
        replace(plan, operations=(*plan.operations, Dir("/more"))),
        replace(plan, operations=(*plan.operations, File("/a", b"1"))),
        replace(plan, operations=(*plan.operations, File("/a", b"2"))),
    ]
    assert [await got(roots, each) for each in (plan, *changes)] == [1, 2, 3, 4, 5, 6]
    assert [await got(roots, each) for each in (plan, *changes)] == [1, 2, 3, 4, 5, 6]


async def test_what_a_path_names_now_counts(roots: Roots, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    shows = replace(plan, operations=(*plan.operations, Bind("/shown", str(tmp_path / "shown"))))
    assert [await got(roots, shows), await got(roots, shows)] == [1, 1]
    (tmp_path / "shown").rename(tmp_path / "old")
    with pytest.raises(SandboxRefused) as refused:
        await roots.get(shows)
    assert (refused.value.step, refused.value.fields["errno"]) == ("bind-source", "ENOENT")
    (tmp_path / "shown").mkdir()
    assert await got(roots, shows) == 2
    (tmp_path / "shown").rename(tmp_path / "older")
    (tmp_path / "shown").symlink_to("older")
    assert await got(roots, shows) == 3, "for the launcher to refuse"


async def test_a_mount_anywhere_makes_all_anew(roots: Roots, plan: Plan, tmp_path: Path) -> None:
    assert [await got(roots, plan), await got(roots, plan)] == [1, 1]
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)  # noqa: ASYNC221 # once
    try:
        assert [await got(roots, plan), await got(roots, plan)] == [2, 2]
    finally:
        subprocess.run(["umount", tmp_path], check=True)  # noqa: ASYNC221 # once
    assert await got(roots, plan) == 3


async def test_the_one_that_is_unused_for_longest_goes(roots: Roots, builder: Builder, plan: Plan) -> None:
    several = [replace(plan, root_bytes=4096 * (n + 1)) for n in range(_KEPT_MAX)]
    before = descriptors()
    for each in several:
        await got(roots, each)
    assert await got(roots, several[0]) == 1
    await got(roots, plan)
    assert descriptors() == before + _KEPT_MAX
    assert await got(roots, several[0]) == 1, "used since"
    assert await got(roots, several[1]) == _KEPT_MAX + 2, "made again"


async def test_two_at_once_get_the_same(roots: Roots, plan: Plan) -> None:
    first, second = await asyncio.gather(got(roots, plan), got(roots, plan))
    assert first == second == await got(roots, plan)
