"""The learning mode on this kernel: what is seen is what a sandbox really does, no more and no less."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from clawos.core.parse import from_json
from clawos.isolator.cgroup import Cgroups, Leaf, Spent
from clawos.isolator.config import Config
from clawos.isolator.launcher import Launcher, LinuxMachine
from clawos.isolator.learn.bpf import Unwatchable
from clawos.isolator.learn.btf import Btf
from clawos.isolator.learn.report import Report
from clawos.isolator.learn.watch import watch
from clawos.isolator.planner import Planner
from clawos.isolator.quotas import Quota
from clawos.isolator.service import Isolator

from .conftest import POLICIES, SERVICES, Ran, finish, queue_of, spec_text

pytestmark = pytest.mark.processes


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
def base() -> Iterator[Path]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    if root is None or not os.access("/sys/kernel/btf/vmlinux", os.R_OK):
        pytest.skip("this machine has no cgroup v2 or no BTF")
    made = root / f"clawos-test-{secrets.token_hex(4)}"
    made.mkdir()
    yield made
    for path in (*made.glob("*/"), made):
        path.rmdir()


Learn = Callable[..., Awaitable[tuple[Ran, Report]]]


@pytest.fixture
async def learn(base: Path, config: Config, planner: Planner) -> AsyncIterator[Learn]:
    """Run a program in a sandbox while the observer watches, as `claw sandbox learn` does."""
    cgroups = Unlimited(base)
    launcher = Launcher(config.launcher, cgroups)
    isolator = Isolator(planner, launcher, LinuxMachine(cgroups), queue_of(config), config.drain_s)

    async def _learn(*argv: str, seccomp: str = "shell", beside: tuple[str, ...] = ()) -> tuple[Ran, Report]:
        observer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "clawos.isolator.learn", base, seccomp, config.filters),
            POLICIES / "seccomp",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SERVICES / "src")},
        )
        assert observer.stdin is not None
        assert observer.stdout is not None
        assert await observer.stdout.readline() == b"watching\n"

        async def run(*argv: str) -> Ran:
            nothing = os.open(os.devnull, os.O_RDONLY)
            text = spec_text(*argv, seccomp=seccomp)
            return await finish(await isolator.run(text, nothing, ":1.1"))

        try:
            ran, *_ = await asyncio.gather(run(*argv), *([run(*beside)] if beside else []))
            told, _ = await observer.communicate(b"%d\n" % ran.result["cgroup_id"])
        finally:
            if observer.returncode is None:
                observer.kill()
                await observer.communicate()
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
    assert "umask" not in called
    assert "umask" in report.unused


async def test_kernel_and_evaluator_agree_on_what_was_refused(
    base: Path, config: Config, planner: Planner
) -> None:
    """The report's verdicts come from the filter's text; here from where the kernel let calls through."""
    cgroups = Unlimited(base)
    isolator = Isolator(
        planner, Launcher(config.launcher, cgroups), LinuxMachine(cgroups), queue_of(config), config.drain_s
    )
    program = "import socket, os\ntry: socket.socket()\nexcept OSError: pass\nos.umask(0)"
    with watch(base, {41: frozenset({0})}) as watched:
        nothing = os.open(os.devnull, os.O_RDONLY)
        ran = await finish(await isolator.run(spec_text(*PYTHON, program), nothing, ":1.1"))
        counts = watched.counts(ran.result["cgroup_id"])
    await isolator.close()
    places: dict[tuple[int, int], set[int]] = {(c.number, c.arguments[0]): set() for c in counts}
    for count in counts:
        places[count.number, count.arguments[0]].add(count.end)
    assert places[41, 2] == {1}, "socket(AF_INET) ends without having begun"
    assert places[95, 0] == {0, 1}


def test_a_kernel_without_the_tracepoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unwatchable, match="no btf_trace_sys_dance"):
        Btf().tracepoint("sys_dance")
    (tmp_path / "vmlinux").write_bytes(bytes(64))
    with pytest.raises(Unwatchable, match="no BTF"):
        Btf(tmp_path / "vmlinux")
    with pytest.raises(Unwatchable, match="No such file"):
        Btf(tmp_path / "none")
