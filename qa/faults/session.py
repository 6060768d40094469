"""Calls through the real launcher, with one system call of its processes made to fail."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clawos.core.parse import to_json
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.handover import sealed
from clawos.isolator.plan import Plan
from clawos.isolator.planner import Planner
from clawos.isolator.seccomp.__main__ import compile_profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES
from clawos.isolator.spec import parse
from clawos.isolator.wire import encode

sys.path.append(str(Path(__file__).parents[2] / "services" / "tests" / "isolator"))
from rig import Rig, read_socket

HERE = Path(__file__).parent
SOURCE = Path("services/src/clawos/isolator/launcher")
POLICIES = Path("policies")
PROCESSES = ("launcher", "spawner", "proc", "filler", "builder", "init", "worker")
"""In the order of their making, up to the first call's; the pid namespace of "proc" ends at once."""
HANG_S = 15
HUNG = "hung"

# What a program can see of its fences. Last, that it came to its end.
LOOK = """grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/self/status; cat /proc/self/[ug]id_map
ulimit -a; umask; hostname; pwd; ls /proc/self/fd; cut -d' ' -f4-6 /proc/self/mountinfo
cd /proc; cat sys/user/max_user_namespaces self/oom_score_adj self/cgroup; cut -d: -f1 self/net/dev
ls -d [0-9]*; echo ran"""

At = tuple[int, int, int]
NOWHERE: At = (0, -1, 1)


@dataclass(frozen=True)
class Made:
    """The nth system call of one number by one process."""

    process: int
    number: int
    nth: int
    result: str = ""

    @property
    def at(self) -> At:
        return self.process, self.number, self.nth


@dataclass(frozen=True)
class Answer:
    """What came of one call, without what differs from time to time: how long it took and how much memory."""

    reports: tuple[str, ...]
    stdout: str

    @property
    def refused(self) -> list[str]:
        return [line for line in self.reports if line.startswith("refused ")]

    @property
    def started(self) -> bool:
        return any(line.startswith("started ") for line in self.reports)

    def unlike(self, other: Answer) -> str:
        """The reports, and what it saw that another did not."""
        lines = set(self.stdout.splitlines()) ^ set(other.stdout.splitlines())
        return f"{', '.join(self.reports)} {sorted(lines)}"


@dataclass(frozen=True)
class Run:
    first: Answer
    others: tuple[Answer, ...]
    """By the same launcher, or by another where that one has ended."""
    is_replaced: bool
    said: str
    """What the launcher said of itself: why it ends."""
    made: tuple[Made, ...]
    left: str
    """What was still there at the end; empty when all is clean."""

    @property
    def injected(self) -> bool:
        return any(made.result == "injected" for made in self.made)


def build(folder: Path) -> tuple[Path, Path]:
    """The launcher as the image has it, and the injector."""
    launcher, inject = folder / "claw-launch", folder / "inject"
    subprocess.run(["make", "-s", "-C", SOURCE, f"OUT={launcher}"], check=True)
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", inject, HERE / "inject.c"], check=True)
    return launcher, inject


def planner(folder: Path) -> Planner:
    """As the service has it, but for where homes are."""
    filters = {"shell": compile_profile(POLICIES / "seccomp", "shell", ARCHITECTURES["x86_64"])}
    return Planner(Config(home=folder / "home"), quotas.load(POLICIES / "quotas.toml"), filters)


def plan_of(planner: Planner, script: str) -> Plan:
    return planner.plan(parse(to_json({"tool": "test.faults", "argv": ["/bin/sh", "-c", script]})))


class Launcher:
    """One that runs under the injector, and the root that it has made."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._root: int | None = None

    def call(self, plan: int) -> Answer:
        """Build the root where there is none yet, and run the plan in it."""
        reader, writer = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        reports: list[str] = []
        try:
            if self._root is None:
                reports, self._root = self.rig.build(plan)
            if self._root is not None:
                with self.rig.start(plan, self._root, (null, writer, writer)) as status:
                    status.settimeout(HANG_S)
                    reports = read_socket(status).decode().splitlines()
        except TimeoutError:
            reports = [HUNG]
        except OSError:  # the launcher has ended
            reports = []
        finally:
            os.close(null)
            os.close(writer)
        words = (line if line[:5] != "usage" else " ".join(line.split()[:2]) for line in reports)
        return Answer(tuple(words), _read_to_the_end(reader))

    def has_ended(self) -> bool:
        """Asked where it gave no word, as it may only when it ends."""
        try:
            self.rig.process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def said(self) -> str:
        words = b""
        for _ in range(2):  # that it has not read all that was asked comes before its words
            with contextlib.suppress(OSError):
                while piece := self.rig.control.recv(100, socket.MSG_DONTWAIT):
                    words += piece
        return words.decode()

    def close(self) -> Iterator[str]:
        """End it; what does not end is told."""
        if self._root is not None:
            os.close(self._root)
        self.rig.control.close()
        if not self.has_ended():
            self.rig.process.kill()
            self.rig.process.wait()
            yield HUNG


class Sessions:
    def __init__(self, folder: Path, cgroups: Path | None) -> None:
        """`cgroups`: where to make the leaf that sandboxes start in."""
        self._launcher, self._inject = build(folder)
        self._cgroups = cgroups
        self._plan = sealed(encode(plan_of(planner(folder), LOOK)))
        self._long_plan = sealed(encode(plan_of(planner(folder), LOOK + "; sleep 60")))
        self._held: Counter[str] | None = None

    def run(self, at: At = NOWHERE, fault: int = 0, *, is_long: bool = False, calls: int = 2) -> Run:
        """A launcher from start to end, with `fault` (0: a SIGKILL) at this system call. `is_long`: the first
        program would go on for a minute."""
        mounts = Path("/proc/self/mountinfo").read_text()
        log = os.memfd_create("log")
        said = ""
        left: list[str] = []
        with self._leaf(left) as leaf:
            launcher = self._start(log, leaf, at, fault)
            answers = [launcher.call(self._long_plan if is_long else self._plan)]
            is_replaced = False
            for _ in range(calls - 1):
                answer = launcher.call(self._plan)
                if not answer.reports and not is_replaced and launcher.has_ended():
                    said += launcher.said()
                    left += launcher.close()
                    launcher = self._start(log, leaf, NOWHERE, 0)
                    is_replaced = True
                    answer = launcher.call(self._plan)
                answers.append(answer)
            if not is_replaced:
                held = launcher.rig.held(self._held)
                self._held = self._held or held
                left += (held - self._held).elements()
            said += launcher.said()
            left += launcher.close()
        if Path("/proc/self/mountinfo").read_text() != mounts:
            left.append("a mount")
        made = tuple(_made(_text(log)))
        return Run(answers[0], tuple(answers[1:]), is_replaced, said, made, ", ".join(left))

    @contextlib.contextmanager
    def _leaf(self, left: list[str]) -> Iterator[int | None]:
        """A cgroup for one run; what is in it at the end is left over."""
        if self._cgroups is None:
            yield None
            return
        path = self._cgroups / f"clawos-faults-{os.getpid()}"
        path.mkdir()
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)
            left += _remove(path)

    def _start(self, log: int, leaf: int | None, at: At, fault: int) -> Launcher:
        words = [str(n) for n in (log, *at, fault)]
        fds = [log] if leaf is None else [log, leaf]
        before = [str(self._inject), *words]
        return Launcher(Rig(self._launcher, before=before, leaf=leaf, pass_fds=fds))


def _read_to_the_end(reader: int) -> str:
    """Until nobody can write any more; whoever holds the other end still lives."""
    said = b""
    deadline = time.monotonic() + HANG_S
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while select.select([stream], [], [], max(0, deadline - time.monotonic()))[0]:
            if not (piece := stream.read(65536)):
                return said.decode()
            said += piece
    return said.decode() + HUNG


def _text(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd) as file:
        return file.read()


def _remove(leaf: Path) -> Iterator[str]:
    """What is left in a leaf; then it goes."""
    processes = (leaf / "cgroup.procs").read_text().split()
    if processes:
        (leaf / "cgroup.kill").write_text("1")
        yield f"{len(processes)} processes"
    while (leaf / "cgroup.events").read_text().find("populated 1") >= 0:
        pass
    leaf.rmdir()


def _made(log: str) -> Iterator[Made]:
    count: Counter[tuple[int, int]] = Counter()
    for line in log.splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # it was killed there
        process, number, result = line.split()
        key = int(process), int(number)
        count[key] += 1
        yield Made(*key, count[key], result)


def cgroup_mount() -> Path | None:
    """A cgroup v2 tree to put a leaf in; controllers are not needed."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2" and os.access(fields[4], os.W_OK):
            return Path(fields[4])
    return None
