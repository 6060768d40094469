"""Whatever fails while a sandbox is set up: no program in a weaker one, a refusal by name, nothing left."""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from qa.faults.rig import PROCESSES, Call, Rig, Run, cgroup_mount

# Calls whose failure takes no fence away: the program may run, and must find what it finds without a fault.
HARMLESS = {
    ("launcher", "brk"): "the allocator takes mmap instead",
    ("launcher", "fcntl"): "close-on-exec again, which pipe2 and open have asked for already",
    (
        "launcher",
        "rt_sigaction",
    ): "without SIGPIPE ignored a report to nobody ends the launcher, as it should",
    ("launcher", "rt_sigprocmask"): "SIGTERM then ends the launcher at once, and the sandbox with it",
    ("launcher", "set_tid_address"): "of use to threads only",
    ("init", "fcntl"): "close-on-exec again, which open has asked for already",
    ("init", "rt_sigprocmask"): "libc's around fork; no signal is handled in init",
    ("worker", "fcntl"): "close-on-exec again, and close_range asks for it for all",
    ("worker", "rt_sigaction"): "a signal stays ignored that should not be: less is delivered, not more",
    ("worker", "rt_sigprocmask"): "libc's around fork; the mask that counts is set, and checked, later",
    ("worker", "set_tid_address"): "of use to threads only",
    ("worker", "umask"): "cannot fail; the unit's is stricter",
}
# Nothing runs, but the launcher cannot say so in its own words; the service does: "it ended without a word".
SILENT = {
    ("launcher", "arch_prctl"): "libc starts",
    ("launcher", "fcntl"): "the descriptors it was given; exit status 2 and a line on stderr",
    ("init", "read"): "the launcher's go did not come, so the launcher is the one to ask",
    ("init", "poll"): "the same",
}
# Refused with another errno than the kernel's.
OTHER_ERRNO = {
    ("init", "read"): errno.EPIPE,  # the launcher finds it gone
    ("init", "fstat"): errno.ELOOP,  # walk(): not to be told from a link
    ("worker", "landlock_create_ruleset"): errno.EOPNOTSUPP,  # no version is no Landlock
    ("worker", "write"): errno.ECHILD,  # it could not say that its fences are up
}
# close() leaves no descriptor open whatever it returns (close(2), "Dealing with error returns"); an injected
# failure does, which is no kernel's behaviour. The first execve is the tracer's.
NOT_INJECTED = {"close"}

SOME = {
    errno.EAGAIN: {"clone3", "fork"},  # a full table of processes
    errno.EMFILE: {
        "open",
        "openat",
        "open_tree",
        "pipe2",
        "signalfd4",
        "fsopen",
        "fsmount",
        "landlock_create_ruleset",
    },
    errno.ENOMEM: {"brk", "fstat", "mount_setattr", "seccomp", "landlock_add_rule", "setgroups"},
    errno.ENOSPC: {"write", "mkdirat", "symlinkat", "fsconfig", "move_mount", "pwrite64", "mount"},
}
ALL = (errno.EAGAIN, errno.EMFILE, errno.ENOMEM, errno.ENOSPC, errno.EPERM)
FORKS = {"fork", "vfork", "clone", "clone3"}


@dataclass(frozen=True)
class Trace:
    """What a launcher does when nothing fails."""

    run: Run
    names: dict[int, str]

    def name(self, call: Call) -> tuple[str, str]:
        return PROCESSES[call.process], self.names[call.number]

    def before(self) -> Iterator[Call]:
        """The calls that come before the program for certain: no other process can overtake them."""
        over: set[int] = set()
        for call in self.run.calls:
            process, name = self.name(call)
            if name in NOT_INJECTED or call.at == (0, self._execve, 1) or call.process in over:
                continue
            if (process, name) == ("launcher", "poll"):  # it has given the go and waits
                over.add(0)
                continue
            yield call
            if process == "init" and name in FORKS:
                over.add(1)

    def beside(self) -> Iterator[Call]:
        """The others: they race with the program, and what must hold is that nothing stays behind."""
        before = set(self.before())
        for call in self.run.calls:
            if call not in before and self.name(call)[1] not in NOT_INJECTED | {"execve"}:
                yield call

    @property
    def _execve(self) -> int:
        return next(number for number, name in self.names.items() if name == "execve")


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("faults"), cgroup_mount())


@pytest.fixture(scope="session")
def trace(rig: Rig) -> Trace:
    command = ["gcc", "-dM", "-E", "-include", "asm/unistd.h", "-x", "c", "/dev/null"]
    header = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {int(n): name for name, n in re.findall(r"#define __NR_(\w+) (\d+)", header)}
    return Trace(rig.run(), names)


def chosen(calls: Iterator[Call], everything: bool) -> list[Call]:
    """All, or the first of each kind."""
    return (
        list(calls)
        if everything
        else list({(c.process, c.number): c for c in reversed(list(calls))}.values())
    )


def faults(name: str, everything: bool) -> list[int]:
    return list(ALL) if everything else [next((e for e, names in SOME.items() if name in names), errno.EPERM)]


def test_without_a_fault_the_program_runs(rig: Rig, trace: Trace) -> None:
    """The positive control of all that follows: the injector alone changes nothing."""
    run = trace.run
    assert (run.status, run.left, run.injected) == (0, "", False)
    assert [line.split()[0] for line in run.reports] == ["started", "exited", "usage"]
    assert run.stdout.endswith("\nran\n")
    assert "NoNewPrivs:\t1\nSeccomp:\t2\n" in run.stdout
    assert rig.run().stdout == run.stdout
    assert {PROCESSES[call.process] for call in trace.before()} == set(PROCESSES)


def test_lists_of_exceptions_name_calls_that_are_made(trace: Trace) -> None:
    made = {trace.name(call) for call in trace.run.calls}
    assert {*HARMLESS, *SILENT, *OTHER_ERRNO} <= made


def refusal(trace: Trace, call: Call, fault: int, run: Run) -> str | None:
    """What is wrong with a run whose set-up met a fault; None when all is as it must be."""
    name = trace.name(call)
    if not run.injected:
        return "the call was not made again"
    if run.left:
        return f"left: {run.left}"
    told = run.reports[0].split() if run.reports else []
    if told[:1] == ["refused"] and "ran" not in run.stdout:
        expected = {fault, OTHER_ERRNO.get(name, fault)}
        return None if int(told[2]) in expected else f"refused with errno {told[2]}"
    if "started" in run.reports[0:1] or run.stdout == trace.run.stdout:
        same = run.stdout == trace.run.stdout and run.reports[-1].startswith("usage exit")
        return None if same and name in HARMLESS else "the program ran"
    if name in SILENT and "ran" not in run.stdout and not any(r.startswith("started") for r in run.reports):
        return None
    return f"it ended without a refusal: {run.reports} {run.stdout!r}"


def test_a_call_that_fails_before_the_program_means_no_program(
    rig: Rig, trace: Trace, pytestconfig: pytest.Config
) -> None:
    everything = pytestconfig.getoption("--all")
    calls = chosen(trace.before(), everything)
    wrong = [
        f"{' '.join(trace.name(call))} {call.nth}, {errno.errorcode[fault]}: {what}"
        for call in calls
        for fault in faults(trace.name(call)[1], everything)
        if (what := refusal(trace, call, fault, rig.run(call.at, fault)))
    ]
    assert wrong == []
    assert len(calls) > 50


def test_a_call_that_fails_beside_the_program_leaves_nothing(
    rig: Rig, trace: Trace, pytestconfig: pytest.Config
) -> None:
    """Whatever the program has seen until its end, it has seen behind all its fences."""
    everything = pytestconfig.getoption("--all")
    wrong = []
    for call in chosen(trace.beside(), everything):
        for fault in faults(trace.name(call)[1], everything):
            run = rig.run(call.at, fault)
            if run.left or not run.injected or not trace.run.stdout.startswith(run.stdout):
                wrong.append(f"{' '.join(trace.name(call))} {call.nth}, {fault}: {run}")
    assert wrong == []


def test_a_process_killed_before_the_program_means_no_program(
    rig: Rig, trace: Trace, pytestconfig: pytest.Config
) -> None:
    wrong = []
    for call in chosen(trace.before(), pytestconfig.getoption("--all")):
        run = rig.run(call.at, plan=rig.long_plan)
        # In the exec itself all fences are up, which is what "started" says.
        started = trace.name(call)[1] != "execve" and any(r.startswith("started") for r in run.reports)
        if run.left or not run.injected or run.stdout or started:
            wrong.append(f"{' '.join(trace.name(call))} {call.nth}: {run.left or run.reports} {run.stdout!r}")
    assert wrong == []


@pytest.mark.parametrize(("process", "name"), [("launcher", "poll"), ("init", "wait4")])
def test_whoever_is_killed_takes_the_program_along(rig: Rig, trace: Trace, process: str, name: str) -> None:
    """Where they wait for a program that would go on for a minute."""
    call = next(call for call in trace.run.calls if trace.name(call) == (process, name))
    run = rig.run(call.at, plan=rig.long_plan)
    assert (run.injected, run.left) == (True, "")


def test_a_program_that_goes_on_is_noticed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the one above: without a fault the long program is still there, and called left over."""
    monkeypatch.setattr("qa.faults.rig.HANG_S", 2)
    assert rig.run(plan=rig.long_plan).left.startswith("it hung for 2 s")
