"""What is used up is told by name, whoever finds out first, and nothing is lost over it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawos.isolator.bubblewrap import Bubblewrap
from clawos.isolator.config import Config
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.launcher import Launcher, LinuxMachine
from clawos.isolator.planner import Planner
from clawos.isolator.service import Isolator

from .conftest import finish, queue_of, spec_text

pytestmark = pytest.mark.processes


def descriptors() -> set[int]:
    return {int(p.name) for p in Path("/proc/self/fd").iterdir() if p.exists()}


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """No more than so many can be opened. What is open already may lie anywhere, so all gaps are filled."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(descriptors())
    fillers = []
    while (fd := os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) < highest:
        fillers.append(fd)
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


@pytest.mark.parametrize("stdin", [False, True])
async def test_without_descriptors_a_call_is_refused_and_nothing_is_lost(
    isolator: Isolator, sandbox: Launcher | Bubblewrap, caplog: pytest.LogCaptureFixture, stdin: bool
) -> None:
    text = spec_text("/usr/bin/true", stdin=stdin)
    await finish(await isolator.run(text, os.open(os.devnull, os.O_RDONLY), ":1.1"))
    before, family, ids = descriptors(), children(), len(sandbox.uids)
    refused: list[SandboxRefused] = []
    events: list[str] = []
    for spare in range(60):
        given = os.open(os.devnull, os.O_RDONLY)
        caplog.clear()
        try:
            with descriptors_left(spare):
                call = await isolator.run(text, given, ":1.1")
        except SandboxRefused as error:
            refused.append(error)
            events.append(caplog.records[-1].__dict__["CLAWOS_LIMIT"])
        else:
            assert (await finish(call)).exit_code == 0
        async with asyncio.timeout(10):
            while isolator.status()["running"] or children() != family:  # noqa: ASYNC110 # neither has an event
                await asyncio.sleep(0.01)
        gc.collect()
        assert descriptors() == before, f"with {spare} left"
        assert len(sandbox.uids) == ids
    assert 8 < len(refused) < 40, "few are too few, and many are enough"
    assert {error.fields["errno"] for error in refused} == {"EMFILE"}
    assert events == [f"refused:{error.step}" for error in refused]


async def test_a_launcher_that_cannot_be_started_is_named(
    config: Config, planner: Planner, tmp_path: Path
) -> None:
    for program, error in ((tmp_path / "missing", "ENOENT"), (tmp_path, "EACCES")):
        made = Isolator(
            planner, Launcher(program, None), LinuxMachine(None), queue_of(config), config.drain_s
        )
        before = descriptors()
        with pytest.raises(SandboxRefused) as refused:
            await made.run(spec_text("/usr/bin/true"), os.open(os.devnull, os.O_RDONLY), ":1.1")
        assert refused.value.fields == {"step": "launcher", "errno": error}
        assert descriptors() == before
        assert made.status()["running"] == 0


# Makes any root, and says of any call what it was told to.
TALKER = """
import os, socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
while True:
    word, fds, _, _ = socket.recv_fds(control, 1, 8)
    if not word:
        break
    with socket.socket(fileno=fds[1]) as status:
        if len(fds) == 2:
            socket.send_fds(status, [b"\\n"], [os.open("/", os.O_RDONLY)])
        else:
            status.send(WORDS.encode() + b"\\n")
    for fd in (fds[0], *fds[2:]):
        os.close(fd)
"""


@pytest.mark.parametrize("words", ["nonsense", "refused", "started x", "x" * 5000, "refused namespaces 28"])
async def test_a_launcher_that_talks_nonsense_is_ended(
    config: Config, planner: Planner, tmp_path: Path, words: str
) -> None:
    """The last is the control: what it says otherwise is understood."""
    program = tmp_path / "launcher"
    program.write_text(f"#!{sys.executable}\nWORDS = {words!r}\n{TALKER}")
    program.chmod(0o755)
    made = Isolator(planner, Launcher(program, None), LinuxMachine(None), queue_of(config), config.drain_s)
    before = descriptors()
    with pytest.raises(SandboxRefused) as refused:
        await asyncio.wait_for(
            made.run(spec_text("/usr/bin/true"), os.open(os.devnull, os.O_RDONLY), ":1.1"), 60
        )
    assert refused.value.step == ("namespaces" if words.endswith("28") else "launcher")
    await made.close()
    assert descriptors() == before
