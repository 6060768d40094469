"""Whatever fails while a sandbox is set up: no program in a weaker one, a refusal by name, nothing left.

And the next call finds what it finds without a fault.
"""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from qa.faults.session import HUNG, PROCESSES, Made, Run, Sessions, cgroup_mount

Name = tuple[str, str]

# What the spawner does in turn, each up to the poll() that it waits in: it starts, it is asked for a root,
# the builder has ended, it is asked for a sandbox, the sandbox has ended.
PHASES = ("spawner", "spawner/root", "spawner/built", "spawner/call", "spawner/ended")

# Calls whose failure takes no fence away: the program may run, and must find what it finds without a fault.
HARMLESS = {
    ("launcher", "rt_sigaction"): "the service starts it with SIGPIPE ignored and nothing handled",
    ("launcher", "rt_sigprocmask"): "libc's around signal(); the mask that counts is set, and checked, later",
    ("launcher", "set_tid_address"): "of use to threads only",
    ("spawner/root", "munmap"): "the plan is still there, which nobody can change",
    ("spawner/built", "wait4"): "asked again",
    ("spawner/built", "writev"): "the root has come, which is what is waited for",
    ("spawner/call", "rt_sigprocmask"): "libc's around setgroups; no signal is handled in the spawner",
    ("builder", "fcntl"): "close-on-exec again, which open has asked for already",
    ("init", "rt_sigprocmask"): "libc's around setresuid; no signal is handled in init",
    ("worker", "fcntl"): "close-on-exec again, which open has asked for already",
    ("worker", "rt_sigaction"): "a signal stays ignored that should not be: less is delivered, not more",
    ("worker", "rt_sigprocmask"): "libc's around setresuid; no signal is handled in the worker",
}
# Nothing runs, but nobody can say so in its own words; the service does: "it ended without a word".
SILENT = {
    ("launcher", "arch_prctl"): "libc starts",
    ("launcher", "dup2"): "the descriptor it is given; exit status 2 and a line on stderr",
    ("spawner", "read"): "the launcher's go did not come, so the launcher is the one to ask",
    ("spawner", "poll"): "the same",
}
# Refused with another errno than the kernel's.
OTHER_ERRNO = {
    ("builder", "fstat"): errno.ELOOP,  # walk(): not to be told from a link
    ("worker", "landlock_create_ruleset"): errno.EOPNOTSUPP,  # no version is no Landlock
}
# Some cannot fail. close() leaves no descriptor open whatever it returns (close(2), "Dealing with error
# returns"); an injected failure does, which is no kernel's behaviour. The first execve is the tracer's.
NOT_INJECTED = {"close", "umask", "geteuid", "getegid"}

SOME = {
    errno.EAGAIN: {"clone3", "fork", "vfork"},  # a full table of processes
    errno.EMFILE: {
        "open",
        "openat",
        "open_tree",
        "pipe2",
        "fsopen",
        "fsmount",
        "landlock_create_ruleset",
        "socketpair",
    },
    errno.ENOMEM: {
        "brk",
        "fstat",
        "mmap",
        "mount_setattr",
        "poll",
        "seccomp",
        "landlock_add_rule",
        "setgroups",
    },
    errno.ENOSPC: {"write", "writev", "mkdir", "symlink", "fsconfig", "move_mount", "unshare"},
}
ALL = (errno.EAGAIN, errno.EMFILE, errno.ENOMEM, errno.ENOSPC, errno.EPERM)
FORKS = {"fork", "vfork", "clone", "clone3"}


@dataclass(frozen=True)
class Trace:
    """What a launcher does when nothing fails."""

    run: Run
    numbers: dict[int, str]
    names: dict[Made, Name] = field(init=False)

    def __post_init__(self) -> None:
        names, polls = {}, -1  # its first poll() only looks whether the launcher lives
        for made in self.run.made:
            if made.process >= len(PROCESSES):
                continue  # the second call's
            process, call = PROCESSES[made.process], self.numbers[made.number]
            if process == "spawner":
                if polls == len(PHASES):
                    continue
                process = PHASES[max(polls, 0)]
                polls += call == "poll"
            names[made] = process, call
        object.__setattr__(self, "names", names)

    def before(self) -> Iterator[Made]:
        """The calls that come before the program for certain: no other process can overtake them."""
        *_, last_word = (made for made, name in self.names.items() if name == ("spawner/call", "write"))
        over = {"spawner/ended", "filler"}
        for made, (process, call) in self.names.items():
            if process in over or call in NOT_INJECTED or made.at == (0, self._execve, 1):
                continue
            if (process, call) == ("launcher", "wait4"):  # it only waits
                continue
            yield made
            if (process == "init" and call in FORKS) or made == last_word:
                over.add(process)

    def beside(self) -> Iterator[Made]:
        """The others: they race with the program, and what must hold is that nothing stays behind."""
        before = set(self.before())
        for made, (process, call) in self.names.items():
            if made not in before and process != "filler" and call not in NOT_INJECTED | {"execve"}:
                yield made

    def first_of_filler(self) -> Iterator[Made]:
        """Up to the first network namespace that it hands over."""
        for made, (process, call) in self.names.items():
            if process == "filler" and call not in NOT_INJECTED:
                yield made
                if call == "sendmsg":
                    return

    def where(self, made: Made) -> str:
        return f"{' '.join(self.names[made])} {made.nth}"

    @property
    def _execve(self) -> int:
        return next(number for number, name in self.numbers.items() if name == "execve")


@pytest.fixture(scope="session")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    return Sessions(tmp_path_factory.mktemp("faults"), cgroup_mount())


@pytest.fixture(scope="session")
def trace(sessions: Sessions) -> Trace:
    command = ["gcc", "-dM", "-E", "-include", "asm/unistd.h", "-x", "c", "/dev/null"]
    header = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = {int(n): name for name, n in re.findall(r"#define __NR_(\w+) (\d+)", header)}
    return Trace(sessions.run(), numbers)


def chosen(trace: Trace, calls: Iterator[Made], everything: bool) -> list[Made]:
    """All; or the first of each kind, and all of the spawner's, which goes on after the call."""
    kinds: dict[object, Made] = {}
    for made in calls:
        name = trace.names[made]
        kinds.setdefault(made if everything or name[0].startswith("spawner") else name, made)
    return list(kinds.values())


def faults(name: str, everything: bool) -> list[int]:
    return list(ALL) if everything else [next((e for e, names in SOME.items() if name in names), errno.EPERM)]


def test_without_a_fault_the_program_runs(sessions: Sessions, trace: Trace) -> None:
    """The positive control of all that follows: the injector alone changes nothing."""
    run = trace.run
    assert (run.left, run.injected, run.said, run.is_replaced) == ("", False, "", False)
    assert [line.split()[0] for line in run.first.reports] == ["started", "exited", "usage"]
    assert run.first.stdout.endswith("\nran\n")
    assert "NoNewPrivs:\t1\nSeccomp:\t2\n" in run.first.stdout
    assert run.others == (run.first,)
    again = sessions.run()
    assert (again.first, again.others) == (run.first, run.others)
    assert {process for process, _ in trace.names.values()} == {*PROCESSES, *PHASES}


def test_lists_of_exceptions_name_calls_that_are_made(trace: Trace) -> None:
    assert {*HARMLESS, *SILENT, *OTHER_ERRNO} <= set(trace.names.values())


def what_is_left(trace: Trace, run: Run) -> str | None:
    """What is wrong with a run whatever has failed in it: with its end, or with the call that follows."""
    if not run.injected:
        return "the call was not made again"
    if run.left:
        return f"left: {run.left}"
    if run.others != trace.run.others:
        return f"the next call differs: {run.others[0].unlike(trace.run.first)}"
    return None


def refusal(trace: Trace, made: Made, fault: int, run: Run) -> str | None:
    """What is wrong with a run whose set-up met a fault; None when all is as it must be."""
    if wrong := what_is_left(trace, run):
        return wrong
    name = trace.names[made]
    if run.first == trace.run.first:
        return None if name in HARMLESS else "the program ran as it does without"
    if run.first.stdout or run.first.started:
        return f"the program ran: {run.first.unlike(trace.run.first)}"
    told = [*run.first.refused, *run.said.splitlines()]
    if not told:
        return None if name in SILENT else f"it ended without a refusal: {run.first.reports}"
    number = int(told[0].split()[2])
    return None if number in {fault, OTHER_ERRNO.get(name, fault)} else f"told: {told[0]}"


def test_a_call_that_fails_before_the_program_means_no_program(
    sessions: Sessions, trace: Trace, pytestconfig: pytest.Config
) -> None:
    everything = pytestconfig.getoption("--all")
    calls = chosen(trace, trace.before(), everything)
    wrong = [
        f"{trace.where(made)}, {errno.errorcode[fault]}: {what}"
        for made in calls
        for fault in faults(trace.names[made][1], everything)
        if (what := refusal(trace, made, fault, sessions.run(made.at, fault)))
    ]
    assert "\n".join(wrong) == ""
    assert len(calls) > 100


def test_a_call_that_fails_beside_the_program_leaves_nothing(
    sessions: Sessions, trace: Trace, pytestconfig: pytest.Config
) -> None:
    """Whatever the program has seen until its end, it has seen behind all its fences."""
    everything = pytestconfig.getoption("--all")
    wrong = []
    for made in chosen(trace, trace.beside(), everything):
        for fault in faults(trace.names[made][1], everything):
            run = sessions.run(made.at, fault)
            has_seen_else = not trace.run.first.stdout.startswith(run.first.stdout)
            if what := what_is_left(trace, run) or ("it saw something else" if has_seen_else else None):
                wrong.append(f"{trace.where(made)}, {errno.errorcode[fault]}: {what}")
    assert "\n".join(wrong) == ""


def test_a_process_killed_before_the_program_means_no_program(
    sessions: Sessions, trace: Trace, pytestconfig: pytest.Config
) -> None:
    wrong = []
    for made in chosen(trace, trace.before(), pytestconfig.getoption("--all")):
        run = sessions.run(made.at, is_long=True)
        what = what_is_left(trace, run)
        # In the exec itself all fences are up, which is what "started" says.
        if run.first.stdout or (run.first.started and trace.names[made][1] != "execve"):
            what = f"the program ran: {run.first.unlike(trace.run.first)}"
        if what:
            wrong.append(f"{trace.where(made)}: {what}")
    assert "\n".join(wrong) == ""


def test_a_filler_that_fails_is_replaced(sessions: Sessions, trace: Trace) -> None:
    """Before its first network namespace and after it: no call is refused."""
    calls = list(trace.first_of_filler())
    for made in calls + [Made(made.process, made.number, 2) for made in calls[-3:]]:
        for fault in (0, errno.ENOSPC):
            run = sessions.run(made.at, fault, calls=3)
            assert run.injected
            assert (run.left, run.is_replaced, run.first, {*run.others}) == (
                "",
                False,
                trace.run.first,
                {run.first},
            )


@pytest.mark.parametrize("name", [("launcher", "wait4"), ("spawner/call", "poll"), ("init", "wait4")])
def test_whoever_is_killed_takes_the_program_along(sessions: Sessions, trace: Trace, name: Name) -> None:
    """Where they wait for a program that would go on for a minute."""
    made = next(made for made, found in trace.names.items() if found == name)
    run = sessions.run(made.at, is_long=True)
    assert what_is_left(trace, run) is None
    assert run.first.reports[-1:] != (HUNG,)


def test_a_program_that_goes_on_is_noticed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the one above: without a fault the long program is still there, and called left over."""
    monkeypatch.setattr("qa.faults.session.HANG_S", 2)
    run = sessions.run(is_long=True)
    assert run.first.reports == (HUNG,)
    assert run.first.stdout.endswith("\nran\n")
