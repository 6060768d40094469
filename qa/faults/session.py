"""One run of the real launcher with one system call of it made to fail."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clawos.core.parse import to_json
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.plan import Plan
from clawos.isolator.planner import Planner
from clawos.isolator.seccomp.__main__ import compile_profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES
from clawos.isolator.spec import parse
from clawos.isolator.wire import encode

HERE = Path(__file__).parent
LAUNCHER = Path("services/src/clawos/isolator/launcher")
POLICIES = Path("policies")
PROCESSES = ("launcher", "init", "worker")
HANG_S = 15

# What a program can see of its fences. Last, that it came to its end.
LOOK = """grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/self/status
ulimit -a; umask; hostname; ls /proc/self/fd; cut -d' ' -f4-6 /proc/self/mountinfo; echo ran"""


@dataclass(frozen=True)
class Call:
    """The nth call of one number by one process."""

    process: int
    number: int
    nth: int
    result: str = ""

    @property
    def at(self) -> tuple[int, int, int]:
        return self.process, self.number, self.nth


@dataclass(frozen=True)
class Run:
    status: int
    stdout: str
    reports: tuple[str, ...]
    calls: tuple[Call, ...]
    left: str
    """What was still there when the launcher was gone; empty when all is clean."""

    @property
    def injected(self) -> bool:
        return any(call.result == "injected" for call in self.calls)


def build(folder: Path) -> tuple[Path, Path]:
    """The launcher as the image has it, and the injector."""
    launcher, inject = folder / "claw-launch", folder / "inject"
    subprocess.run(["make", "-s", "-C", LAUNCHER, f"OUT={launcher}"], check=True)
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", inject, HERE / "inject.c"], check=True)
    return launcher, inject


def planner(folder: Path) -> Planner:
    """As the service has it, but for where homes are."""
    filters = {"shell": compile_profile(POLICIES / "seccomp", "shell", ARCHITECTURES["x86_64"])}
    return Planner(Config(home=folder / "home"), quotas.load(POLICIES / "quotas.toml"), filters)


def plan_of(planner: Planner, script: str) -> Plan:
    return planner.plan(parse(to_json({"tool": "test.faults", "argv": ["/bin/sh", "-c", script]})))


class Rig:
    def __init__(self, folder: Path, cgroups: Path | None) -> None:
        """`cgroups`: where to make the leaf that sandboxes start in."""
        self.launcher, self.inject = build(folder)
        self.cgroups = cgroups
        self.plan = encode(plan_of(planner(folder), LOOK))
        self.long_plan = encode(plan_of(planner(folder), LOOK + "; sleep 60"))

    def run(self, at: tuple[int, int, int] = (0, -1, 1), fault: int = 0, plan: bytes | None = None) -> Run:
        """The launcher from start to end, with `fault` (0: a SIGKILL) at this call."""
        mounts = Path("/proc/self/mountinfo").read_text()
        plan_fd = os.memfd_create("plan")
        os.write(plan_fd, plan or self.plan)
        status_read, status_write = os.pipe()
        log_read, log_write = os.pipe()
        for fd in (status_write, log_write):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)  # nobody reads before the end
        passed = [plan_fd, status_write, log_write]
        leaf = self._leaf()
        cgroup = "--test-without-cgroup"
        if leaf:
            passed.append(os.open(leaf, os.O_RDONLY | os.O_DIRECTORY))
            cgroup = str(passed[-1])
        words = [str(n) for n in (log_write, *at, fault, self.launcher, plan_fd, status_write)]
        process = subprocess.Popen(
            [self.inject, *words, cgroup],
            pass_fds=passed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # To the end of the program's output: whoever holds it open still lives.
        try:
            stdout, _ = process.communicate(timeout=HANG_S)
            left = []
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, _ = process.communicate()
            left = [f"it hung for {HANG_S} s"]
        for fd in passed:
            os.close(fd)
        if leaf:
            left += _remove(leaf)
        if Path("/proc/self/mountinfo").read_text() != mounts:
            left.append("a mount")
        with os.fdopen(status_read) as reports, os.fdopen(log_read) as log:
            told = tuple(reports.read().splitlines())
            return Run(process.returncode, stdout, told, tuple(_calls(log.read())), ", ".join(left))

    def _leaf(self) -> Path | None:
        if not self.cgroups:
            return None
        leaf = self.cgroups / f"clawos-faults-{os.getpid()}"
        leaf.mkdir()
        return leaf


def _remove(leaf: Path) -> Iterator[str]:
    """What is left in a leaf; then it goes."""
    processes = (leaf / "cgroup.procs").read_text().split()
    if processes:
        (leaf / "cgroup.kill").write_text("1")
        yield f"{len(processes)} processes"
    while (leaf / "cgroup.events").read_text().find("populated 1") >= 0:
        pass
    leaf.rmdir()


def _calls(log: str) -> Iterator[Call]:
    made: Counter[tuple[int, int]] = Counter()
    for line in log.splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # it was killed there
        process, number, result = line.split()
        key = int(process), int(number)
        made[key] += 1
        yield Call(*key, made[key], result)


def cgroup_mount() -> Path | None:
    """A cgroup v2 tree to put a leaf in; controllers are not needed."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2" and os.access(fields[4], os.W_OK):
            return Path(fields[4])
    return None
