"""The XDP program: real ones, pinned in a BPF file system of this test's own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clawos.network.config import Config
from clawos.network.errors import LinkRefused, ProgramRefused
from clawos.network.program import PinnedProgram
from clawos.network.service import Network

from .conftest import MakeSandbox, is_kept_off, links, reaches
from .pin_xdp import ABORTED, DROP, PASS, SOCKET_FILTER, pin

pytestmark = pytest.mark.processes

Listen = Callable[..., socket.socket]


@pytest.fixture
def pinned(config: Config) -> Iterator[Path]:
    """Where the program would be; nothing is there yet."""
    directory = config.program.parent
    directory.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
    yield config.program
    subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.parametrize(("answer", "may"), [(PASS, True), (DROP, False), (ABORTED, False)])
async def test_a_pinned_program_decides(
    network: Network,
    config: Config,
    make_sandbox: MakeSandbox,
    listen: Listen,
    pinned: Path,
    answer: int,
    may: bool,
) -> None:
    listen(config.proxy, config.port)
    before, after = make_sandbox(), make_sandbox()
    assert network.status().program is False
    network.attach(before.route, uid=0)
    pin(pinned, answer)
    assert network.status().program is True
    network.attach(after.route, uid=0)
    with before.inside():
        assert reaches(config.proxy, config.port), "positive control: none when it was attached"
    with after.inside():
        assert reaches(config.proxy, config.port) if may else is_kept_off(config.proxy, config.port)


async def test_a_program_that_does_not_fit_refuses_the_sandbox(
    network: Network, make_sandbox: MakeSandbox, pinned: Path
) -> None:
    pin(pinned, PASS, SOCKET_FILTER)
    sandbox = make_sandbox()
    with pytest.raises(LinkRefused) as refused:
        network.attach(sandbox.route, uid=0)
    assert refused.value.fields == {"step": "program", "errno": "EINVAL"}
    assert links() == set(), "nothing of it is left"
    pinned.unlink()
    network.attach(sandbox.route, uid=0)


async def test_what_is_no_program_refuses_the_sandbox(
    network: Network, make_sandbox: MakeSandbox, config: Config
) -> None:
    config.program.parent.mkdir()
    config.program.write_text("")
    with pytest.raises(ProgramRefused) as refused:
        network.attach(make_sandbox().route, uid=0)
    assert refused.value.fields["errno"] == "EACCES"
    assert links() == set()


def test_a_program_that_may_not_be_read_is_not_none(pinned: Path) -> None:
    """The room is not root: what root pinned for itself must not count as absent."""
    pin(pinned, PASS)
    for directory in (pinned.parent, *pinned.parents[1:4]):
        directory.chmod(0o755)
    pinned.chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(ProgramRefused) as refused, PinnedProgram(pinned).opened():
            pass
    finally:
        os.seteuid(0)
    assert refused.value.fields["errno"] == "EACCES"
    with PinnedProgram(pinned).opened() as program:
        assert program is not None
