"""claw-launch, whatever it is asked and whatever it lacks: it says so, loses nothing and serves on."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawos.isolator.config import Config
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.handover import sealed
from clawos.isolator.launcher import Launcher, LinuxMachine
from clawos.isolator.planner import Planner
from clawos.isolator.service import Isolator
from clawos.isolator.spec import parse
from clawos.isolator.wire import encode

from .conftest import Ran, by_launcher, finish, queue_of, spec_text
from .rig import Rig, children, read_socket

pytestmark = pytest.mark.processes

CALLS_MAX = 256
"""launcher/claw-launch.c has it too."""


class Asked:
    """A launcher, and descriptors of every kind to ask it with."""

    def __init__(self, rig: Rig, planner: Planner, folder: Path) -> None:
        self.rig = rig
        self.plan = encode(planner.plan(parse(spec_text("/usr/bin/true"))))
        self.waiting = sealed(encode(planner.plan(parse(spec_text("/usr/bin/sleep", "1016")))))
        null = os.open(os.devnull, os.O_RDWR)
        open_plan = os.memfd_create("plan", os.MFD_ALLOW_SEALING)
        os.write(open_plan, self.plan)
        plan = sealed(self.plan)
        _, root = rig.build(plan)
        assert root is not None
        self.fds = {
            "plan": plan,
            "unsealed plan": open_plan,
            "waiting plan": self.waiting,
            "half a plan": sealed(self.plan[: len(self.plan) // 2]),
            "empty plan": sealed(b""),
            "root": root,
            "own root": os.open("/proc/self/ns/mnt", os.O_RDONLY),
            "network": os.open("/proc/self/ns/net", os.O_RDONLY),
            "user namespace": os.open("/proc/self/ns/user", os.O_RDONLY),
            "null": null,
            "directory": os.open(folder, os.O_RDONLY | os.O_DIRECTORY),
            "path": os.open("/", os.O_PATH),
        }
        rig.run(self.plan)
        self.held = rig.held()

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)

    def start(self, plan: int) -> socket.socket:
        null = self.fds["null"]
        return self.rig.start(plan, self.fds["root"], (null, null, null))

    def is_as_before(self) -> None:
        """It serves the next call, and holds no more than ever."""
        assert self.rig.held(self.held) == self.held
        assert self.rig.run(self.plan)[0].startswith("started ")
        assert self.rig.held(self.held) == self.held


@pytest.fixture(scope="module")
def running(launcher_path: Path) -> Iterator[Rig]:
    with Rig(launcher_path) as rig:
        yield rig


@pytest.fixture
def asked(running: Rig, planner: Planner, tmp_path: Path) -> Iterator[Asked]:
    made = Asked(running, planner, tmp_path)
    yield made
    made.close()


KINDS = (
    "plan",
    "unsealed plan",
    "half a plan",
    "empty plan",
    "root",
    "own root",
    "network",
    "user namespace",
)
OTHERS = ("null", "directory", "path", "status", "status", "half-closed status", "closed status")
A_CALL = ("plan", "status", "null", "null", "null", "root")


@st.composite
def requests(draw: st.DrawFn) -> list[str]:
    """Descriptors by name: any, or a call's with some of them another."""
    kinds = st.sampled_from(KINDS + OTHERS)
    if draw(st.booleans()):
        return draw(st.lists(kinds, max_size=12))
    names = list(A_CALL if draw(st.booleans()) else A_CALL[:2])
    for at in draw(st.lists(st.integers(0, len(names) - 1), max_size=2)):
        names[at] = draw(kinds)
    return names


@given(burst=st.lists(st.tuples(st.binary(min_size=1, max_size=40), requests()), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_it_serves_on(asked: Asked, burst: list[tuple[bytes, list[str]]]) -> None:
    answers = []
    for payload, names in burst:
        fds, ours = [], []
        for name in names:
            if "status" not in name:
                fds.append(asked.fds[name])
                continue
            end, theirs = socket.socketpair()
            end.settimeout(20)
            if name == "half-closed status":
                end.shutdown(socket.SHUT_WR)
            fds.append(theirs.detach())
            ours.append(fds[-1])
            if name == "closed status":
                end.close()
            else:
                answers.append(end)
        socket.send_fds(asked.rig.control, [payload], fds)
        for fd in ours:
            os.close(fd)
    for end in answers:
        with end:
            for line in read_socket(end).decode(errors="replace").splitlines():
                hypothesis.event(" ".join(line.split()[:2]))
                assert not line or line.split()[0] in {"refused", "started", "exited", "usage"}
    asked.is_as_before()


def test_what_it_is_asked_in_the_test_above_is_a_call(asked: Asked) -> None:
    """The control: the names, as they stand, are one."""
    names = [name for name in A_CALL if name != "status"]
    with asked.rig.ask([asked.fds[name] for name in names]) as status:
        assert read_socket(status).startswith(b"started ")


def test_a_request_that_did_not_all_arrive_is_refused(asked: Asked) -> None:
    """More than a message takes; more than the spawner has room for, which may look like another request."""
    null = asked.fds["null"]
    with asked.rig.ask([asked.fds["plan"], null, null, null, asked.fds["root"], null, null, null]) as status:
        assert read_socket(status) == b"refused request 24\n"
    spawner = asked.rig.spawner
    highest = max(int(fd.name) for fd in Path(f"/proc/{spawner}/fd").iterdir())
    before = resource.prlimit(spawner, resource.RLIMIT_NOFILE)
    told: Counter[str] = Counter()
    for limit in range(3, highest + 20):
        resource.prlimit(spawner, resource.RLIMIT_NOFILE, (limit, before[1]))
        with asked.start(asked.fds["plan"]) as status:
            told[read_socket(status).decode().partition("\n")[0]] += 1
    resource.prlimit(spawner, resource.RLIMIT_NOFILE, before)
    assert {said for said in told if not said.startswith("started ")} >= {"", "refused request 24"}
    assert all(said[:8] == "started " or said[-3:] in {"", " 24"} for said in told), told
    assert any(said.startswith("started ") for said in told), "the control"
    asked.is_as_before()


def test_more_calls_than_it_keeps_are_refused(asked: Asked) -> None:
    started = [asked.start(asked.waiting) for _ in range(CALLS_MAX)]
    for status in started:
        assert status.recv(100).startswith(b"started ")
    with asked.start(asked.fds["plan"]) as status:
        assert read_socket(status) == b"refused request 74\n"
    for status in started:
        status.close()
    asked.is_as_before()


def test_a_message_without_a_byte_is_the_end(launcher_path: Path, planner: Planner) -> None:
    """As the kernel tells it; calls that run go on to theirs."""
    plan = encode(planner.plan(parse(spec_text("/usr/bin/true"))))
    with Rig(launcher_path) as rig:
        assert rig.run(plan)[0].startswith("started ")
        rig.control.send(b"")
        assert rig.process.wait(20) == 0


@by_launcher
@pytest.mark.parametrize(
    ("limit", "step"),
    [("max_net_namespaces", "network"), ("max_pid_namespaces", "namespaces")],
)
async def test_without_namespaces_calls_are_refused_and_work_again(
    sh: Callable[..., Awaitable[Ran]], launcher: Launcher, limit: str, step: str
) -> None:
    """Those that were made ahead are used up first."""
    assert (await sh("true")).exit_code == 0
    assert launcher._process is not None
    (spawner,) = children(launcher._process.pid)

    def allow(count: int) -> None:
        command = ["nsenter", "--user", "--target", str(spawner), "sh", "-c"]
        subprocess.run([*command, f"echo {count} >/proc/sys/user/{limit}"], check=True)

    allow(0)
    refused = []
    for _ in range(40):
        try:
            await sh("true")
        except SandboxRefused as error:
            refused.append(error.fields)
    assert len(refused) >= 20
    assert all(fields == {"step": step, "errno": "ENOSPC"} for fields in refused)
    allow(1000)
    assert (await sh("echo again")).stdout == "again\n"
    assert children(launcher._process.pid) == [spawner], "the same one"


async def test_a_launcher_that_cannot_start_for_want_of_descriptors_says_so(
    config: Config, planner: Planner, tmp_path: Path
) -> None:
    """One more each time, so that it ends at each step; the last is the control."""
    program = tmp_path / "launcher"
    program.touch(0o755)
    refused = []
    for limit in range(4, 60):
        program.write_text(f'#!/bin/sh\nulimit -n {limit}\nexec {config.launcher} "$@"\n')
        sandbox = Launcher(program, None)
        made = Isolator(planner, sandbox, LinuxMachine(None), queue_of(config), config.drain_s)
        try:
            call = await made.run(spec_text("/usr/bin/true"), os.open(os.devnull, os.O_RDONLY), ":1.1")
        except SandboxRefused as error:
            refused.append((error.step, error.fields["errno"]))
        else:
            assert (await finish(call)).exit_code == 0
            break
        finally:
            await sandbox.close()
    else:
        pytest.fail(f"always refused: {refused}")
    # Where there is no descriptor for its status, nobody can say more of a request.
    assert {name for name in refused if name != ("launcher", None)} >= {
        ("process", "EMFILE"),
        ("proc", "EMFILE"),
    }
    # The other: too many are on their way through sockets.
    assert {number for step, number in refused if step != "launcher"} <= {"EMFILE", "ETOOMANYREFS"}
