"""The delegated subtree. Limits themselves need a kernel with controllers: qa/ tests those in the image."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from clawos.isolator import quotas
from clawos.isolator.cgroup import Cgroups, Leaf, Spent, disk_of
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.handover import sealed
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse
from clawos.isolator.wire import encode

from .conftest import POLICIES, spec_text
from .rig import Rig, read_socket

QUOTA = quotas.load(POLICIES / "quotas.toml")["small"]


def fake_tree(tmp_path: Path, controllers: str) -> tuple[Path, Path]:
    tmp_path.mkdir(exist_ok=True)
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/x\n0::/system.slice/clawos-isolator.service/supervisor\n")
    base = tmp_path / "system.slice" / "clawos-isolator.service"
    (base / "supervisor").mkdir(parents=True)
    (base / "cgroup.controllers").write_text(controllers)
    return own, base


async def test_controllers_are_handed_on(tmp_path: Path) -> None:
    own, base = fake_tree(tmp_path, "cpuset cpu io memory pids\n")
    cgroups = await Cgroups.claim(None, own, tmp_path)
    assert cgroups.base == base
    assert (base / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (base / "supervisor" / "memory.min").read_text() == "67108864"


async def test_without_controllers_there_are_no_sandboxes(tmp_path: Path) -> None:
    own, _ = fake_tree(tmp_path, "cpu io\n")
    with pytest.raises(SandboxRefused, match="memory, pids are not delegated"):
        await Cgroups.claim(None, own, tmp_path)


async def test_the_disk_is_limited_where_there_is_one(tmp_path: Path) -> None:
    own, base = fake_tree(tmp_path, "cpuset cpu io memory pids\n")
    cgroups = await Cgroups.claim("254:0", own, tmp_path)
    assert (base / "cgroup.subtree_control").read_text() == "+cpu +io +memory +pids"
    leaf = await cgroups.create("1", QUOTA)
    os.close(leaf.fd)
    assert (leaf.path / "io.max").read_text() == "254:0 rbps=134217728 wbps=134217728"
    own, _ = fake_tree(tmp_path / "older", "cpu memory pids\n")
    with pytest.raises(SandboxRefused, match="io are not delegated"):
        await Cgroups.claim("254:0", own, tmp_path / "older")


def test_the_disk_is_the_whole_one(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    partition = tmp_path / "vda" / "vda2"
    partition.mkdir(parents=True)
    (tmp_path / "vda" / "dev").write_text("254:0\n")
    (partition / "dev").write_text(f"{name}\n")
    assert disk_of(tmp_path / "home", tmp_path) is None, "not a block device"
    (tmp_path / name).symlink_to(partition)
    assert disk_of(tmp_path / "home", tmp_path) == name
    (partition / "partition").write_text("2\n")
    assert disk_of(tmp_path / "home", tmp_path) == "254:0"


async def test_without_a_delegated_cgroup_there_are_no_sandboxes(tmp_path: Path) -> None:
    own, _ = fake_tree(tmp_path, "cpu memory pids\n")
    own.write_text("0::/user.slice/session-1.scope\n")
    with pytest.raises(SandboxRefused, match="not in a delegated cgroup"):
        await Cgroups.claim(None, own, tmp_path)


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
    (tmp_path / "pids.peak").write_text("9\n")
    (tmp_path / "pids.events").write_text("max 0\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 250000\nuser_usec 1\nsystem_usec 2\n")
    leaf = Leaf(tmp_path)
    spent = leaf.spent()
    os.close(leaf.fd)
    assert spent == Spent(
        out_of_memory=True, out_of_pids=False, cpu_s=0.25, peak_memory_bytes=123456, peak_pids=9
    )


@pytest.mark.processes
async def test_a_sandbox_starts_in_its_leaf_and_dies_with_it(
    real_base: Path, planner: Planner, launcher_path: Path
) -> None:
    (real_base / "call-1").mkdir()
    leaf = Leaf(real_base / "call-1")
    plan_fd = sealed(encode(planner.plan(parse(spec_text("/usr/bin/sleep", "1009")))))
    null = os.open(os.devnull, os.O_RDWR)
    with Rig(launcher_path, leaf=leaf.fd) as rig:
        _, root = rig.build(plan_fd)
        assert root is not None
        status = rig.start(plan_fd, root, (null, null, null))
        assert status.recv(100).startswith(b"started")
        inside = (leaf.path / "cgroup.procs").read_text().split()
        assert len(inside) == 2, "init and worker, and not the launcher"
        assert str(rig.process.pid) not in inside
        leaf.kill()
        assert read_socket(status).startswith(b"usage exit")
        status.close()
        await leaf.remove()
    for fd in (plan_fd, null, root):
        os.close(fd)
    assert not leaf.path.exists()


async def test_leftovers_are_killed_and_removed(real_base: Path, tmp_path: Path) -> None:
    left = real_base / "call-old" / "deeper"
    left.mkdir(parents=True)
    sleeper = subprocess.Popen(["sleep", "1010"])  # noqa: ASYNC220 # one start
    (left / "cgroup.procs").write_text(str(sleeper.pid))
    await Cgroups(real_base)._remove_leftovers()
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not (real_base / "call-old").exists()
