"""What the tests share: a segment of their own, sandboxes in it, and what listens and calls."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from clawos.network.config import Config
from clawos.network.firewall import Nftables
from clawos.network.links import Links
from clawos.network.program import PinnedProgram
from clawos.network.service import Network

TIMEOUT_S = 20.0
KEPT_OFF_S = 1.0
"""What got through in this time would have: a packet in one machine takes microseconds."""

# What the launcher does: a namespace owned by a user namespace, and a route socket opened in it.
_SANDBOX = """
import os, socket, sys
way = socket.socket(fileno=int(sys.argv[1]))
uid = int(sys.argv[2])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
network = os.open("/proc/self/ns/net", os.O_RDONLY)
socket.send_fds(way, [b"."], [route.fileno(), network])
way.recv(1)
"""


@dataclass
class Sandbox:
    """A network namespace as the launcher makes them."""

    route: int
    network: int
    process: subprocess.Popen[bytes]
    way: socket.socket

    def end(self) -> None:
        """Nothing holds the namespace any more."""
        for fd in (self.route, self.network):
            os.close(fd)
        self.way.close()
        self.process.wait(10)
        self.route = self.network = -1

    def route_socket(self) -> socket.socket:
        return socket.socket(fileno=os.dup(self.route))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that are made here are in the sandbox's namespace."""
        with _in_namespace(self.network):
            yield


@contextmanager
def _in_namespace(namespace: int) -> Iterator[None]:
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        os.setns(namespace, os.CLONE_NEWNET)
        yield
    finally:
        os.setns(before, os.CLONE_NEWNET)
        os.close(before)


@pytest.fixture
def segment() -> Iterator[None]:
    """A network namespace of this test's own, as the unit's PrivateNetwork= makes one."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    os.unshare(os.CLONE_NEWNET)
    yield
    os.setns(before, os.CLONE_NEWNET)
    os.close(before)


MakeSandbox = Callable[..., Sandbox]


@pytest.fixture
def make_sandbox(segment: None) -> Iterator[MakeSandbox]:
    made: list[Sandbox] = []

    def make(uid: int = 0) -> Sandbox:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-S", "-c", _SANDBOX, str(theirs.fileno()), str(uid)]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        ours.settimeout(30)
        _, (route, network), _, _ = socket.recv_fds(ours, 1, 2)
        made.append(Sandbox(route, network, process, ours))
        return made[-1]

    yield make
    for sandbox in made:
        if sandbox.route >= 0:
            sandbox.end()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(sandboxes_max=4, program=tmp_path / "bpf" / "egress_xdp")


@pytest.fixture
async def network(segment: None, config: Config) -> AsyncIterator[Network]:
    made = Network(config, Links(), Nftables(config.nft), PinnedProgram(config.program))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def listen(segment: None) -> Iterator[Callable[..., socket.socket]]:
    """Listen in the segment, on TCP or UDP."""
    with ExitStack() as stack:

        def start(address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
            listener = stack.enter_context(socket.socket(socket.AF_INET, kind))
            listener.settimeout(KEPT_OFF_S if kind == socket.SOCK_DGRAM else TIMEOUT_S)
            listener.bind((address, port))
            if kind == socket.SOCK_STREAM:
                listener.listen()
            return listener

        yield start


def reaches(address: str, port: int, source: str | None = None, timeout_s: float = TIMEOUT_S) -> bool:
    """Does a connection come about from here?"""
    try:
        with socket.create_connection((address, port), timeout_s, (source, 0) if source else None):
            return True
    except OSError:
        return False


def is_kept_off(address: str, port: int, source: str | None = None) -> bool:
    return not reaches(address, port, source, KEPT_OFF_S)


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()} - {"lo"}


def until(is_so: Callable[[], bool]) -> bool:
    """The kernel takes a namespace down in its own time."""
    deadline = time.monotonic() + 20
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return so
