"""The second backend's own: what it refuses, what it tells bubblewrap, and what it adds to it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clawos.core import run as core_run
from clawos.isolator import bubblewrap
from clawos.isolator.bubblewrap import Bubblewrap, options
from clawos.isolator.cgroup import Cgroups, Leaf, Spent
from clawos.isolator.config import Config
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.plan import Bind, Plan
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Streams
from clawos.isolator.quotas import Quota
from clawos.isolator.spec import parse

from .conftest import ISOLATOR, SERVICES, Ran, Run, read_all, spec_text

SANDBOX = pwd.getpwnam("clawos-sandbox")
# What `bubblewrap.py` and claw-confine act on. A field that is not here would be left out in silence.
UNDERSTOOD = {
    "tool",
    "argv",
    "env",
    "run_as",
    "uid",
    "has_own_uid",
    "gid",
    "groups",
    "hostname",
    "proxy",
    "cwd",
    "stdin",
    "wall_s",
    "quota_name",
    "quota",
    "seccomp_name",
    "seccomp_filter",
    "landlock_min_abi",
    "operations",
    "home",
    "root_bytes",
    "zygote",  # it has none: argv starts a new Python
}


def plan_of(planner: Planner, *argv: str, **spec: object) -> Plan:
    return planner.plan(parse(spec_text(*argv, **spec)))


def told(plan: Plan) -> list[str]:
    return list(options(plan, lambda content: 100 + len(content)))


def test_every_field_of_a_plan_is_understood() -> None:
    assert {field.name for field in dataclasses.fields(Plan)} == UNDERSTOOD


def test_the_stage_is_written_twice_and_the_same() -> None:
    header = (ISOLATOR / "confine" / "confine.h").read_text()
    match = re.search(r'^#define STAGE "(.*)"$', header, re.MULTILINE)
    assert match
    assert match[1] == bubblewrap.STAGE


def test_what_bubblewrap_is_told(planner: Planner) -> None:
    words = " ".join(told(plan_of(planner, "/usr/bin/true", home="write", home_owner=0)))
    for wanted in (
        "--unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup --disable-userns",
        "--die-with-parent --new-session",
        "--cap-drop ALL --cap-add CAP_SYS_ADMIN --cap-add CAP_SETPCAP",
        "--ro-bind /usr /usr",
        "--proc /proc --remount-ro /proc",
        "--dev-bind /dev/null /dev/null",
        "--perms 0755 --dir /tmp",
        f"--bind {bubblewrap.STAGE} /home/root",
    ):
        assert wanted in words
    assert words.endswith("--remount-ro /")
    assert "-try" not in words, "an option that gives up in silence"
    assert "not-a-security-boundary" not in words
    assert "/dev/shm --tmpfs" not in words, "bubblewrap's would have neither noexec nor a limit on inodes"


def test_what_it_cannot_show_is_refused(planner: Planner) -> None:
    plan = plan_of(planner, "/usr/bin/true", home="read", home_owner=0)
    for more, step in (
        (Bind("/tmp/x", "/etc/x"), "tmpfs"),
        (Bind("/x", f"{bubblewrap.STAGE}/x"), "bind-source"),
        (object(), "plan"),
    ):
        changed = dataclasses.replace(plan, operations=(*plan.operations, more))  # type: ignore[arg-type] # on purpose
        with pytest.raises(SandboxRefused) as refused:
            told(changed)
        assert refused.value.step == step
    assert told(plan), "the plan itself is not refused"


def fake(tmp_path: Path, script: str) -> Path:
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.mark.processes
@pytest.mark.parametrize(
    ("script", "step"),
    [
        ("echo bubblewrap 0.11.2", "bubblewrap-version"),
        ("echo bubblewrap 0.9.9", "bubblewrap-version"),
        ("echo bubblewrap 12", "bubblewrap-version"),
        ("echo bubblewrap 0.12.0 and more", "bubblewrap-version"),
        ("true", "bubblewrap-version"),
        ("exit 1", "bubblewrap"),
        ("echo bubblewrap 0.12.0", None),
        ("echo bubblewrap 0.13.1", None),
        ("echo bubblewrap 1.0.0", None),
    ],
)
async def test_an_old_bubblewrap_is_refused(tmp_path: Path, script: str, step: str | None) -> None:
    checked = Bubblewrap(fake(tmp_path, script), Path("/nowhere"), None).check()
    if step is None:
        await checked
        return
    with pytest.raises(SandboxRefused) as refused:
        await checked
    assert refused.value.step == step


@pytest.mark.processes
async def test_without_bubblewrap_there_are_no_sandboxes(tmp_path: Path) -> None:
    with pytest.raises(SandboxRefused) as refused:
        await Bubblewrap(tmp_path / "none", Path("/nowhere"), None).check()
    assert (refused.value.step, refused.value.fields["errno"]) == ("bubblewrap", "ENOENT")


@pytest.mark.parametrize(("answer", "has"), [("ENOSYS", False), ("EPERM", False), (None, True)])
def test_a_unit_that_blocks_openat2_is_noticed(answer: str | None, has: bool) -> None:
    """As RestrictSUIDSGID= does: by a filter, here in a process of its own."""
    code = (
        "import ctypes, errno, struct, sys\n"
        "from clawos.isolator.bubblewrap import _has_openat2\n"
        "if sys.argv[1]:\n"
        "    answer = 0x50000 | getattr(errno, sys.argv[1])\n"
        "    rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (6, 0, 0, answer), (6, 0, 0, 0x7FFF0000)]\n"
        "    blob = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *r) for r in rules))\n"
        "    program = ctypes.create_string_buffer(struct.pack('HP', len(rules), ctypes.addressof(blob)))\n"
        "    libc = ctypes.CDLL(None)\n"
        "    assert libc.prctl(38, 1, 0, 0, 0) == 0\n"
        "    assert libc.prctl(22, 2, program, 0, 0) == 0\n"
        "print(_has_openat2())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SERVICES / "src")}
    command = [sys.executable, "-c", code, answer or ""]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(has)


@pytest.fixture
def sandbox(config: Config) -> Bubblewrap:
    return Bubblewrap(config.bubblewrap, config.confine, None)


async def start(sandbox: Bubblewrap, plan: Plan) -> bytes:
    """What the program writes."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        running = await sandbox.start("1", plan, Streams(nothing, write_end, nothing))
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
        os.close(nothing)
    await running.wait()
    return read_all(read_end)


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.processes
async def test_a_refusal_says_in_bubblewraps_words_why(sandbox: Bubblewrap, planner: Planner) -> None:
    plan = plan_of(planner, "/usr/bin/true")
    before = open_descriptors()
    for operation, step in (
        (Bind("/srv", "/no\nsuch\x1b[31mplace"), "bind-source"),
        (Bind("/usr/x", "/etc"), "bubblewrap"),  # below what is read-only
    ):
        with pytest.raises(SandboxRefused) as refused:
            await start(sandbox, dataclasses.replace(plan, operations=(*plan.operations, operation)))
        assert refused.value.step == step
        assert refused.value.message.isprintable()
        assert "Can't" in refused.value.message
    assert open_descriptors() == before
    assert await start(sandbox, plan_of(planner, "/usr/bin/echo", "works")) == b"works\n"


@pytest.mark.processes
async def test_a_set_up_that_takes_too_long_is_refused(
    config: Config, planner: Planner, tmp_path: Path
) -> None:
    sandbox = Bubblewrap(fake(tmp_path, "exec sleep 1020"), config.confine, None)
    with pytest.raises(SandboxRefused) as refused:
        await start(sandbox, plan_of(planner, "/usr/bin/true", wall_s=0.3))
    assert (refused.value.step, refused.value.fields["errno"]) == ("set-up", "ETIMEDOUT")


@pytest.mark.processes
async def test_a_newer_landlock_than_there_is_is_refused(sandbox: Bubblewrap, planner: Planner) -> None:
    plan = dataclasses.replace(plan_of(planner, "/usr/bin/true"), landlock_min_abi=64)
    with pytest.raises(SandboxRefused) as refused:
        await start(sandbox, plan)
    assert refused.value.step == "landlock-abi"


SET_ID = """
import ctypes, errno, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def try_to(name, number, *arguments):
    ctypes.set_errno(0)
    kinds = {bytes: ctypes.c_char_p, int: ctypes.c_long}
    done = libc.syscall(number, *(kinds[type(a)](a) for a in arguments))
    print(name, "ok" if done >= 0 else errno.errorcode[ctypes.get_errno()])
how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, 0o4755, 0))
CREATE, UNNAMED = os.O_CREAT | os.O_WRONLY, os.O_TMPFILE | os.O_WRONLY
try_to("open", 2, b"a", CREATE, 0o4755)
try_to("openat", 257, -100, b"b", CREATE, 0o2755)
try_to("openat-unnamed", 257, -100, b".", UNNAMED, 0o4755)
try_to("openat2", 437, -100, b"c", ctypes.addressof(how), 24)
try_to("creat", 85, b"d", 0o6755)
try_to("mkdir", 83, b"e", 0o2755)
try_to("mkdirat", 258, -100, b"f", 0o2755)
try_to("plain-open", 2, b"g", CREATE, 0o755)
try_to("plain-mkdir", 83, b"h", 0o1777)
try_to("read-with-garbage-for-a-mode", 2, b"g", os.O_RDONLY, 0o4755)
"""


@pytest.mark.processes
@pytest.mark.parametrize("backend", ["bubblewrap"])
async def test_no_set_id_file_is_made_by_open(run: Run, tmp_path: Path) -> None:
    outside = subprocess.run(  # noqa: ASYNC221 # one look
        [sys.executable, "-c", SET_ID], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert {line.split()[1] for line in outside.stdout.splitlines()} == {"ok"}, "positive control"
    inside = await run("/usr/bin/python3", "-I", "-c", SET_ID, home="write", home_owner=0)
    assert dict(line.split() for line in inside.stdout.splitlines()) == {
        "open": "EPERM",
        "openat": "EPERM",
        "openat-unnamed": "EPERM",
        "openat2": "ENOSYS",
        "creat": "EPERM",
        "mkdir": "EPERM",
        "mkdirat": "EPERM",
        "plain-open": "ok",
        "plain-mkdir": "ok",
        "read-with-garbage-for-a-mode": "ok",
    }, inside.stderr


MAP = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
try:
    mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)
    print("mapped")
except PermissionError:
    print("refused")
"""


@pytest.mark.processes
async def test_what_was_written_is_no_code_either(run: Run) -> None:
    """Landlock looks at exec only; noexec also keeps a library from being mapped."""
    written = MAP.replace("fd = ", "open(sys.argv[1], 'w').write('x' * 4096)\nfd = ", 1)
    for path in ("/tmp/lib.so", "/dev/shm/lib.so", "/home/root/lib.so"):
        ran = await run("/usr/bin/python3", "-I", "-c", written, path, home="write", home_owner=0)
        assert ran.stdout == "refused\n", ran.stderr
    assert (await run("/usr/bin/python3", "-I", "-c", MAP, "/usr/bin/true")).stdout == "mapped\n"


@pytest.mark.processes
async def test_a_flood_of_empty_files_ends(sh: Callable[..., Awaitable[Ran]]) -> None:
    script = "i=0; while echo -n > /tmp/$i; do i=$((i+1)); done; echo $i"
    ran = await sh(script)
    assert "No space left" in ran.stderr
    assert 1000 < int(ran.stdout.split()[-1]) < 16_777_216 // 4096 + 64


class BareLeaf(Leaf):
    """On a machine without controllers there are no counters to read."""

    def spent(self) -> Spent:
        return Spent(False, False, 0.5, 4096, 1)


class BareCgroups(Cgroups):
    async def create(self, call_id: str, quota: Quota) -> Leaf:
        path = self.base / f"call-{call_id}"
        path.mkdir()
        return BareLeaf(path)


@pytest.mark.processes
async def test_a_sandbox_starts_in_its_leaf_and_dies_with_it(
    config: Config, planner: Planner, real_base: Path
) -> None:
    cgroups = BareCgroups(real_base)
    sandbox = Bubblewrap(config.bubblewrap, config.confine, cgroups)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    plan = plan_of(planner, "/usr/bin/cat", "/proc/self/cgroup")
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    running = await sandbox.start("1", plan, Streams(nothing, write_end, nothing))
    os.close(write_end)
    assert (await running.wait()).cpu_s == 0.5
    assert b"0::/\n" in read_all(read_end), "the leaf is the root of its cgroup namespace"
    assert not (real_base / "call-1").exists()

    running = await sandbox.start(
        "2", plan_of(planner, "/usr/bin/sleep", "1021"), Streams(nothing, nothing, nothing)
    )
    os.close(nothing)
    inside = (real_base / "call-2" / "cgroup.procs").read_text().split()
    assert len(inside) == 3, "bubblewrap, pid 1 and the program"
    running.kill()
    assert (await running.wait()).signal == 9
    assert not (real_base / "call-2").exists()


@pytest.mark.processes
async def test_the_wall_clock_ends_the_leaf(config: Config, planner: Planner, real_base: Path) -> None:
    sandbox = Bubblewrap(config.bubblewrap, config.confine, BareCgroups(real_base))
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    plan = plan_of(planner, "/usr/bin/sleep", "1022", wall_s=0.5)
    outcome = await (await sandbox.start("1", plan, Streams(nothing, nothing, nothing))).wait()
    os.close(nothing)
    assert (outcome.out_of_time, outcome.signal) == (True, 9)
    assert not (real_base / "call-1").exists()


@pytest.mark.processes
async def test_as_the_unit_runs_it(
    planner: Planner, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not root but a user with two capabilities; and the homes are behind a door that only he can pass."""
    capabilities = [
        f"--{which}=-all,+setuid,+setgid" for which in ("inh-caps", "ambient-caps", "bounding-set")
    ]
    become = ["--reuid=clawos-isolator", "--regid=clawos-isolator", "--init-groups", "--no-new-privs"]
    spawn = core_run.spawn

    async def as_the_unit(argv: list[str | Path], **streams: Any) -> asyncio.subprocess.Process:
        return await spawn(["/usr/bin/setpriv", *become, *capabilities, *argv], **streams)

    state = tmp_path / "state"
    state.mkdir()
    shutil.chown(state, "clawos-isolator", "clawos-isolator")
    state.chmod(0o700)
    for parent in config.confine.parents[:3]:
        parent.chmod(0o755)
    planner = Planner(msgspec.structs.replace(config, home=state / "home"), planner._quotas, planner._filters)
    script = "id -u; cat /proc/self/oom_score_adj; echo kept > file; ls -A; grep -c . /proc/self/mounts"
    plan = plan_of(planner, "/bin/sh", "-c", script, groups=["systemd-journal"], home="write", home_owner=0)
    monkeypatch.setattr(core_run, "spawn", as_the_unit)
    seen = await start(Bubblewrap(config.bubblewrap, config.confine, None), plan)
    uid, score, names, _ = seen.decode().split()
    assert (uid, score, names) == (str(SANDBOX.pw_uid), "500", "file")
    kept = state / "home" / "0" / "file"
    assert (kept.read_text(), kept.stat().st_uid) == ("kept\n", SANDBOX.pw_uid)
    who = ("--reuid=clawos-sandbox", "--regid=clawos-sandbox", "--clear-groups")
    command = ["/usr/bin/setpriv", *who, "cat", str(kept)]
    door = subprocess.run(command, capture_output=True, check=False)  # noqa: ASYNC221 # one look
    assert b"Permission denied" in door.stderr, "and the sandbox's user himself cannot"
