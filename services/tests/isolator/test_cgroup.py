"""The delegated subtree. Limits themselves need a kernel with controllers: qa/ tests those in the image."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from clawos.isolator import quotas
from clawos.isolator.cgroup import Cgroups, Leaf
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse
from clawos.isolator.wire import encode

from .conftest import POLICIES, read_all, spec_text

QUOTA = quotas.load(POLICIES / "quotas.toml")["small"]


def fake_tree(tmp_path: Path, controllers: str) -> tuple[Path, Path]:
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/x\n0::/system.slice/clawos-isolator.service/supervisor\n")
    base = tmp_path / "system.slice" / "clawos-isolator.service"
    (base / "supervisor").mkdir(parents=True)
    (base / "cgroup.controllers").write_text(controllers)
    return own, base


async def test_controllers_are_handed_on(tmp_path: Path) -> None:
    own, base = fake_tree(tmp_path, "cpuset cpu io memory pids\n")
    cgroups = await Cgroups.claim(own, tmp_path)
    assert cgroups.base == base
    assert (base / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (base / "supervisor" / "memory.min").read_text() == "67108864"


async def test_without_controllers_there_are_no_sandboxes(tmp_path: Path) -> None:
    own, _ = fake_tree(tmp_path, "cpu io\n")
    with pytest.raises(SandboxRefused, match="memory, pids are not delegated"):
        await Cgroups.claim(own, tmp_path)


async def test_without_a_delegated_cgroup_there_are_no_sandboxes(tmp_path: Path) -> None:
    own, _ = fake_tree(tmp_path, "cpu memory pids\n")
    own.write_text("0::/user.slice/session-1.scope\n")
    with pytest.raises(SandboxRefused, match="not in a delegated cgroup"):
        await Cgroups.claim(own, tmp_path)


async def test_every_limit_is_written(tmp_path: Path) -> None:
    leaf = await Cgroups(tmp_path).create("1", QUOTA)
    written = {file.name: file.read_text() for file in leaf.path.iterdir()}
    os.close(leaf.fd)
    assert written == {
        "memory.max": "100663296",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "32",
        "cpu.max": "100000 100000",
    }


def test_what_was_spent_is_read(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 1\n")
    (tmp_path / "memory.peak").write_text("123456\n")
    (tmp_path / "pids.events").write_text("max 0\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 250000\nuser_usec 1\nsystem_usec 2\n")
    leaf = Leaf(tmp_path)
    spent = leaf.spent()
    os.close(leaf.fd)
    assert (spent.out_of_memory, spent.out_of_pids, spent.cpu_s, spent.peak_memory_bytes) == (
        True,
        False,
        0.25,
        123456,
    )


@pytest.mark.processes
async def test_a_sandbox_starts_in_its_leaf_and_dies_with_it(
    real_base: Path, planner: Planner, launcher_path: Path
) -> None:
    (real_base / "call-1").mkdir()
    leaf = Leaf(real_base / "call-1")
    plan_fd = os.memfd_create("plan")
    os.write(plan_fd, encode(planner.plan(parse(spec_text("/usr/bin/sleep", "1009")))))
    status_read, status_write = os.pipe()
    command = [str(launcher_path), str(plan_fd), str(status_write), str(leaf.fd)]
    process = subprocess.Popen(command, pass_fds=(plan_fd, status_write, leaf.fd))  # noqa: ASYNC220 # one start
    os.close(status_write)
    assert os.read(status_read, 100).startswith(b"started")
    inside = (leaf.path / "cgroup.procs").read_text().split()
    assert len(inside) == 2, "init and worker, and not the launcher"
    assert str(process.pid) not in inside
    leaf.kill()
    process.wait(10)
    await leaf.remove()
    assert read_all(status_read).startswith(b"usage exit")
    os.close(plan_fd)
    assert not leaf.path.exists()


async def test_leftovers_are_killed_and_removed(real_base: Path, tmp_path: Path) -> None:
    left = real_base / "call-old" / "deeper"
    left.mkdir(parents=True)
    sleeper = subprocess.Popen(["sleep", "1010"])  # noqa: ASYNC220 # one start
    (left / "cgroup.procs").write_text(str(sleeper.pid))
    await Cgroups(real_base)._remove_leftovers()
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not (real_base / "call-old").exists()
