"""The learning mode on this kernel: what is seen is what a sandbox really does, no more and no less."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import resource
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from clawos.core.parse import from_json
from clawos.isolator.cgroup import Cgroups, Leaf, Spent
from clawos.isolator.config import Config
from clawos.isolator.launcher import Launcher, LinuxMachine
from clawos.isolator.learn.calls import Calls
from clawos.isolator.learn.perf import Event, Tracepoints, Unwatchable
from clawos.isolator.learn.report import Report
from clawos.isolator.learn.watch import watch
from clawos.isolator.planner import Planner
from clawos.isolator.quotas import Quota
from clawos.isolator.service import Isolator

from .conftest import POLICIES, SERVICES, Ran, finish, queue_of, spec_text

pytestmark = pytest.mark.processes

SECCOMP, SOCKET, UMASK = 317, 41, 95


class Unmeasured(Leaf):
    def spent(self) -> Spent:
        return Spent(False, False, 0, 0, 0)


class Unlimited(Cgroups):
    """Leaves without limits, which want no controllers; their ids are as real as any."""

    async def create(self, call_id: str, quota: Quota) -> Leaf:
        path = self.base / f"call-{call_id}"
        path.mkdir()
        return Unmeasured(path)


@pytest.fixture
def tracefs(tmp_path: Path) -> Iterator[None]:
    """Where nobody mounted it yet."""
    if any(line.split()[2] == "tracefs" for line in Path("/proc/self/mounts").read_text().splitlines()):
        yield
        return
    place = tmp_path / "tracefs"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tracefs", "tracefs", place], capture_output=True).returncode:
        pytest.skip("this machine's kernel, or its lockdown, has no tracefs")
    yield
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def base(tracefs: None) -> Iterator[Path]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    if root is None:
        pytest.skip("this machine has no cgroup v2")
    made = root / f"clawos-test-{secrets.token_hex(4)}"
    made.mkdir()
    yield made
    for path in (*made.glob("*/"), made):
        path.rmdir()


@contextlib.asynccontextmanager
async def observer_of(
    base: Path, config: Config, seccomp: str = "shell"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """What `claw sandbox learn` starts, once it watches."""
    observer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clawos.isolator.learn", base, seccomp, config.filters),
        POLICIES / "seccomp",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SERVICES / "src")},
    )
    try:
        assert observer.stdout is not None
        assert await observer.stdout.readline() == b"watching\n"
        yield observer
    finally:
        if observer.returncode is None:
            observer.kill()
            await observer.communicate()


Learn = Callable[..., Awaitable[tuple[Ran, Report]]]


@pytest.fixture
async def learn(base: Path, config: Config, planner: Planner) -> AsyncIterator[Learn]:
    """Run a program in a sandbox while the observer watches, as `claw sandbox learn` does."""
    cgroups = Unlimited(base)
    launcher = Launcher(config.launcher, cgroups)
    isolator = Isolator(planner, launcher, LinuxMachine(cgroups), queue_of(config), config.drain_s)

    async def _learn(*argv: str, seccomp: str = "shell", beside: tuple[str, ...] = ()) -> tuple[Ran, Report]:
        async def run(*argv: str) -> Ran:
            nothing = os.open(os.devnull, os.O_RDONLY)
            text = spec_text(*argv, seccomp=seccomp)
            return await finish(await isolator.run(text, nothing, ":1.1"))

        async with observer_of(base, config, seccomp) as observer:
            ran, *_ = await asyncio.gather(run(*argv), *([run(*beside)] if beside else []))
            told, _ = await observer.communicate(b"%d\n" % ran.result["cgroup_id"])
        return ran, from_json(told, Report, "report")

    yield _learn
    await isolator.close()


PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")


async def test_what_a_program_calls_is_seen(learn: Learn) -> None:
    ran, report = await learn("/usr/bin/cat", "/etc/passwd")
    assert ran.exit_code == 0
    calls = {call.syscall: call.calls for call in report.allowed}
    assert calls["execve"] == 1, "the one by which the program begins"
    assert calls["exit_group"] == 1, "a call that never returns"
    assert calls["openat"] >= 2
    assert report.lost == 0


async def test_what_the_launcher_does_is_not_the_programs(learn: Learn) -> None:
    _, report = await learn("/usr/bin/true")
    called = {call.syscall for call in report.allowed} | {call.syscall for call in report.refused}
    assert not called & {
        "setsid",
        "capset",
        "keyctl",
        "seccomp",
        "landlock_restrict_self",
        "pivot_root",
        "waitid",
    }


async def test_what_the_filter_refuses_is_told_apart(learn: Learn) -> None:
    program = """if True:
        import ctypes, fcntl, socket
        libc = ctypes.CDLL(None)
        libc.syscall(155, b"/", b"/")  # pivot_root
        libc.syscall(253)  # inotify_init
        for family in (socket.AF_INET, socket.AF_UNIX):
            try: socket.socket(family, socket.SOCK_STREAM)
            except OSError as error: print(error.errno)
        try: fcntl.ioctl(0, 0x5412, b"x")  # TIOCSTI
        except OSError as error: print(error.errno)
    """
    ran, report = await learn(*PYTHON, program)
    assert ran.stdout == "1\n1\n"
    refused = {(call.syscall, *call.arguments.items()): (call.calls, call.answer) for call in report.refused}
    assert refused["pivot_root",] == (1, "EPERM")
    assert refused["inotify_init",] == (1, "ENOSYS")
    assert refused["socket", ("arg0", 2)] == (1, "EPERM")
    assert refused["ioctl", ("arg1", 0x5412)] == (1, "EPERM")
    allowed = {(call.syscall, *call.arguments.items()) for call in report.allowed}
    assert ("socket", ("arg0", 1)) in allowed
    assert not allowed & refused.keys()


async def test_children_and_threads_count_and_neighbours_do_not(learn: Learn) -> None:
    program = """if True:
        import os, threading
        thread = threading.Thread(target=lambda: os.mkdir("/tmp/x")); thread.start(); thread.join()
        if os.fork() == 0: os.symlink("a", "/tmp/y"); os._exit(0)
        os.wait()
    """
    beside = (*PYTHON, "import os\nfor _ in range(200): os.umask(0)")
    _, report = await learn(*PYTHON, program, beside=beside)
    called = {call.syscall for call in report.allowed}
    assert {"mkdir", "symlink", "wait4"} <= called
    assert sum(call.calls for call in report.allowed if call.syscall in ("clone", "clone3")) == 2, (
        "both its ends, the maker's and the new one's, are one call"
    )
    assert "umask" not in called
    assert "umask" in report.unused


async def test_kernel_and_evaluator_agree_on_what_was_refused(
    base: Path, config: Config, planner: Planner
) -> None:
    """The report's verdicts come from the filter's text; here from where the kernel let calls through."""
    program = "import socket, os\ntry: socket.socket()\nexcept OSError: pass\nos.umask(0)"
    calls = Calls(SECCOMP, {SOCKET: frozenset({0})})
    with watch(base, calls) as watched:
        ran = await run_in(base, config, planner, program)
        assert watched.end() == 0
    refused = {(made.number, made.arguments[0]): made.refused for made in calls.made(ran.result["cgroup_id"])}
    assert refused[SOCKET, 2] == errno.EPERM, "socket(AF_INET) ends without having begun"
    assert refused[UMASK, 0] == 0


async def run_in(base: Path, config: Config, planner: Planner, program: str) -> Ran:
    cgroups = Unlimited(base)
    isolator = Isolator(
        planner, Launcher(config.launcher, cgroups), LinuxMachine(cgroups), queue_of(config), config.drain_s
    )
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        return await finish(await isolator.run(spec_text(*PYTHON, program), nothing, ":1.1"))
    finally:
        await isolator.close()


MANY = "import os, time\nfor _ in range(%d):\n    for _ in range(2000): os.umask(0)\n    time.sleep(%g)"


async def test_what_finds_no_room_is_counted(base: Path, config: Config, planner: Planner) -> None:
    """Nobody empties the rings here: 200,000 calls are more than they hold."""
    calls = Calls(SECCOMP, {})
    with watch(base, calls) as watched:
        ran = await run_in(base, config, planner, MANY % (100, 0))
        lost = watched.end()
    made = {one.number: times for one, times in calls.made(ran.result["cgroup_id"]).items()}
    assert 0 < made[UMASK] < 200_000
    assert lost > 0
    assert lost + 2 * made[UMASK] >= 400_000, "each has a beginning and an end"


async def test_rings_are_emptied_as_they_fill(learn: Learn) -> None:
    ran, report = await learn(*PYTHON, MANY % (50, 0.1))
    assert ran.exit_code == 0
    assert report.lost == 0
    assert {call.syscall: call.calls for call in report.allowed}["umask"] == 100_000, (
        "more than the rings hold"
    )


DESCRIPTORS = Path("/proc/self/fd")


def held() -> tuple[int, int]:
    """Descriptors and memory of ours that are perf events'."""
    links = [str(entry.readlink()) for entry in DESCRIPTORS.iterdir() if entry.is_symlink()]
    return sum("perf_event" in link for link in links), Path("/proc/self/maps").read_text().count(
        "perf_event"
    )


def descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


def test_nothing_is_left_behind(base: Path) -> None:
    before = descriptors()
    with watch(base, Calls(SECCOMP, {})):
        events, pages = held()
        assert events >= 2 * pages >= 2, "positive control"
    assert held() == (0, 0)
    assert descriptors() == before
    with pytest.raises(ZeroDivisionError), watch(base, Calls(SECCOMP, {})):
        raise ZeroDivisionError
    assert held() == (0, 0)


@pytest.mark.parametrize("room", range(1, 4))
def test_nothing_is_left_behind_by_a_start_that_fails(base: Path, room: int) -> None:
    before = descriptors()
    taken = {int(entry.name) for entry in list(DESCRIPTORS.iterdir()) if entry.is_symlink()}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest free numbers are taken first.
    free = [number for number in range(max(taken) + room + 1) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[room], limits[1]))
    try:
        with pytest.raises(Unwatchable, match="Too many open files"), watch(base, Calls(SECCOMP, {})):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert held() == (0, 0)
    assert descriptors() == before


async def test_after_the_end_nothing_is_seen(base: Path, config: Config, planner: Planner) -> None:
    calls = Calls(SECCOMP, {})
    with watch(base, calls) as watched:
        seen = await run_in(base, config, planner, "")
        watched.end()
        unseen = await run_in(base, config, planner, "")
        watched.end()
    assert calls.made(seen.result["cgroup_id"])
    assert not calls.made(unseen.result["cgroup_id"])


async def test_an_observer_that_nobody_asks_ends(base: Path, config: Config) -> None:
    async with observer_of(base, config) as observer:
        told, _ = await asyncio.wait_for(observer.communicate(), 30)
        assert observer.returncode == 1
        assert json.loads(told)["error"]["name"] == "Unasked"


def test_an_ordinary_user_is_told(base: Path) -> None:
    tracepoint = Tracepoints.find().enter
    group = os.open(base, os.O_RDONLY)
    os.seteuid(65534)
    try:
        with pytest.raises(Unwatchable) as of_tracefs, watch(base, Calls(SECCOMP, {})):
            pass
        with pytest.raises(Unwatchable) as of_perf:
            Event(group, 0, tracepoint, 4096)
    finally:
        os.seteuid(0)
        os.close(group)
    assert of_tracefs.value.hint == of_perf.value.hint == "run it as root"


def test_a_cgroup_that_is_none_is_told(tracefs: None, tmp_path: Path) -> None:
    with pytest.raises(Unwatchable, match="No such file"), watch(tmp_path / "none", Calls(SECCOMP, {})):
        pass
    with pytest.raises(Unwatchable, match="refuses"), watch(tmp_path, Calls(SECCOMP, {})):
        pass


def test_closed_tracefs_is_told(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("proc /proc proc rw 0 0\n")
    with pytest.raises(Unwatchable, match="no tracefs") as none:
        Tracepoints.find(mounts)
    mounts.write_text(f"tracefs {tmp_path} tracefs rw 0 0\n")
    with pytest.raises(Unwatchable, match="sys_enter/id: No such file") as closed:
        Tracepoints.find(mounts)
    assert "lockdown=integrity" in none.value.hint == closed.value.hint
    for number, name in ((7, "sys_enter"), (8, "sys_exit")):
        folder = tmp_path / "events" / "raw_syscalls" / name
        folder.mkdir(parents=True)
        (folder / "id").write_text(f"{number}\n")
    assert Tracepoints.find(mounts) == Tracepoints(7, 8)
