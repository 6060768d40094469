"""The way to the egress service, by the real launcher and the real network room: that way, and no other.

Each act that must fail has a positive control: outside the sandbox it works.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from network.conftest import MakeSandbox, links, make_sandbox, reaches, segment, until

from clawos.core.errors import ClawError
from clawos.isolator.bubblewrap import Bubblewrap
from clawos.isolator.config import Config
from clawos.isolator.errors import EgressRefused, SandboxRefused
from clawos.isolator.launcher import Launcher, LinuxMachine
from clawos.isolator.plan import Proxy
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Sandbox
from clawos.isolator.service import Isolator
from clawos.isolator.ways import AHEAD
from clawos.network.config import Config as NetworkConfig
from clawos.network.firewall import Nftables
from clawos.network.links import Links
from clawos.network.program import PinnedProgram
from clawos.network.service import Network

from .conftest import Ran, finish, queue_of, spec_text

__all__ = ["make_sandbox", "segment"]  # fixtures of the network room's tests

pytestmark = pytest.mark.processes

OTHER_PORT = 9999
LAN, METADATA = "10.0.2.2", "169.254.169.254"


class Beside:
    """The network room in this process instead of on the bus."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.attached = 0

    async def proxy(self) -> Proxy:
        status = self._network.status()
        return Proxy(status.proxy, status.port)

    async def attach(self, route: int) -> Proxy:
        try:
            told = self._network.attach(route, uid=0)
        except ClawError as error:
            raise EgressRefused(error) from None
        self.attached += 1
        return Proxy(told.proxy, told.port)


@pytest.fixture
async def network(segment: None, tmp_path: Path) -> AsyncIterator[Network]:
    config = NetworkConfig(sandboxes_max=8, program=tmp_path / "none")
    made = Network(config, Links(), Nftables(config.nft), PinnedProgram(config.program))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def beside(network: Network) -> Beside:
    return Beside(network)


@pytest.fixture
async def launcher(config: Config, beside: Beside) -> AsyncIterator[Launcher]:
    made = Launcher(config.launcher, None, network=beside)
    yield made
    await made.close()
    assert until(lambda: not links()), "a launcher that ends takes along what it made ahead"


Egress = Callable[..., Any]


def isolator_with(sandbox: Sandbox, config: Config, planner: Planner, beside: Beside) -> Isolator:
    return Isolator(planner, sandbox, LinuxMachine(None), queue_of(config), config.drain_s, beside)


@pytest.fixture
def egress(launcher: Launcher, config: Config, planner: Planner, beside: Beside) -> Egress:
    """Run Python in a sandbox with the way out."""
    isolator = isolator_with(launcher, config, planner, beside)

    async def run(script: str, **spec: Any) -> Ran:
        text = spec_text(
            "/usr/bin/python3", "-c", script, **{"network": "egress", "seccomp": "python", **spec}
        )
        return await finish(await isolator.run(text, os.open(os.devnull, os.O_RDONLY), ":1.1"))

    return run


PROXY = Path(__file__).with_name("stand_in_proxy.py")


@pytest.fixture
def proxy(network: Network) -> Iterator[None]:
    """A listener in the place of the egress service, in the segment."""
    status = network.status()
    command = [sys.executable, "-S", str(PROXY), status.proxy, str(status.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield
        process.kill()


FETCH = "import urllib.request as r; print(r.urlopen('http://example.org/page', timeout=5).read().decode())"


@pytest.mark.usefixtures("proxy")
async def test_a_program_fetches_through_the_proxy(egress: Egress) -> None:
    ran = await egress(FETCH)
    assert (ran.exit_code, ran.stdout) == (0, "GET http://example.org/page from 198.18.0.1\n\n"), ran.stderr
    assert (await egress(FETCH)).stdout.split()[-1] == "198.18.0.2", "each call is known by its address"


@pytest.mark.usefixtures("proxy")
async def test_curl_fetches_through_the_proxy(
    launcher: Launcher, config: Config, planner: Planner, beside: Beside
) -> None:
    """Which reads the variables its own way, and resolves names in a thread of its own."""
    isolator = isolator_with(launcher, config, planner, beside)
    command = (
        "curl -sS --max-time 20 http://example.org/page; curl -sS --noproxy '*' --max-time 5 http://10.0.2.2/"
    )
    text = spec_text("/bin/sh", "-c", command, network="egress", seccomp="shell")
    ran = await finish(await isolator.run(text, os.open(os.devnull, os.O_RDONLY), ":1.1"))
    assert ran.stdout == "GET http://example.org/page from 198.18.0.1\n", ran.stderr
    assert "Could not connect" in ran.stderr or "Failed to connect" in ran.stderr, "no other way"


@pytest.mark.usefixtures("proxy")
async def test_nothing_of_it_is_there_without_egress(egress: Egress) -> None:
    ran = await egress("import os; print([n for n in os.environ if 'proxy' in n.lower()])", network="none")
    assert ran.stdout == "[]\n"
    ran = await egress(f"import socket; {CONNECT.format('198.19.255.1', 8118)}", network="none")
    assert "PermissionError" in ran.stderr
    assert links() == set(), "and nothing is made ahead"


CONNECT = "s = socket.create_connection(('{}', {}), 3); print('through')"
_UDP = "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('{}', {})); print('through')"
_OPEN = "socket.socket({}); print('through')"
_FAST = (
    "s = socket.socket(); s.settimeout(3); s.sendto(b'x', socket.MSG_FASTOPEN, ('{}', {})); print('through')"
)


@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize(
    ("act", "error"),
    [
        (CONNECT.format("198.19.255.1", OTHER_PORT), "PermissionError"),  # by Landlock
        (CONNECT.format(LAN, 80), "PermissionError"),
        (CONNECT.format(METADATA, 80), "PermissionError"),
        (CONNECT.format(LAN, 8118), "Network is unreachable"),
        (CONNECT.format(METADATA, 8118), "Network is unreachable"),
        (CONNECT.format("127.0.0.1", OTHER_PORT), "PermissionError"),
        (CONNECT.format("127.0.0.1", 8118), "ConnectionRefusedError"),  # its own loopback
        (_FAST.format("198.19.255.1", OTHER_PORT), "PermissionError"),
        (_UDP.format("198.19.255.1", 53), "PermissionError"),
        (_UDP.format(LAN, 53), "PermissionError"),
        (_OPEN.format("socket.AF_INET6, socket.SOCK_STREAM"), "PermissionError"),
        (_OPEN.format("socket.AF_INET, socket.SOCK_RAW, 1"), "PermissionError"),
        (_OPEN.format("socket.AF_PACKET, socket.SOCK_RAW, 0"), "PermissionError"),
        (_OPEN.format("socket.AF_NETLINK, socket.SOCK_RAW, 0"), "PermissionError"),
        (_OPEN.format("socket.AF_INET, socket.SOCK_STREAM, 262"), "PermissionError"),
        ("s = socket.socket(); s.bind(('0.0.0.0', 8118)); print('through')", "PermissionError"),
        ("print(socket.getaddrinfo('example.org', 80)); print('through')", "gaierror"),
    ],
)
async def test_no_other_way(egress: Egress, network: Network, act: str, error: str) -> None:
    ran = await egress(f"import socket; {act}")
    assert error in ran.stderr, ran
    assert "through" not in ran.stdout


@pytest.mark.parametrize(("address", "port"), [("198.19.255.1", OTHER_PORT), (LAN, 8118), (METADATA, 8118)])
async def test_what_stays_shut_is_there(segment: None, address: str, port: int) -> None:
    """Positive control of the test above: where these addresses are, and without rules, they answer."""
    for each in (address, "127.0.0.1"):
        made = Links()
        made.open(each)
        made.close()
    with socket.create_server(("0.0.0.0", port)):
        assert reaches(address, port)


@pytest.mark.usefixtures("proxy")
async def test_calls_leave_nothing_and_a_few_are_ready(egress: Egress, beside: Beside) -> None:
    for _ in range(12):  # more than may be attached at a time
        assert (await egress(FETCH)).exit_code == 0
    assert until(lambda: len(links()) == AHEAD)
    assert beside.attached == 12 + AHEAD


async def vanished() -> None:
    """The network room hears of a change as its event loop turns, which is this test's."""
    await asyncio.sleep(0.2)
    assert links() == set()


async def test_a_link_that_was_taken_away_is_not_used(
    egress: Egress, network: Network, proxy: None, beside: Beside
) -> None:
    assert (await egress(FETCH)).exit_code == 0
    assert until(lambda: len(links()) == AHEAD)
    await network.open()  # as a restart does
    assert links() == set()
    assert (await egress(FETCH)).exit_code == 0
    assert beside.attached >= 1 + AHEAD + 1


async def test_changed_rules_are_a_named_refusal(egress: Egress, network: Network, proxy: None) -> None:
    assert (await egress(FETCH)).exit_code == 0
    await asyncio.to_thread(subprocess.run, ["nft", "delete table inet clawos"], check=True)
    await vanished()
    for _ in range(AHEAD + 1):
        with pytest.raises(EgressRefused) as refused:
            await egress(FETCH)
        assert refused.value.fields == {"step": "egress", "reason": "FirewallChanged"}
    assert (await egress("print(1)", network="none")).exit_code == 0


async def test_a_running_call_loses_its_way_when_rules_change(egress: Egress, proxy: None) -> None:
    script = f"""
import os, sys, time
{FETCH}
sys.stdout.flush()
while 'eth0' in open('/proc/self/net/dev').read():
    time.sleep(0.2)
{FETCH}
"""
    call = asyncio.create_task(egress(script, wall_s=20))
    await asyncio.sleep(2)
    await asyncio.to_thread(subprocess.run, ["nft", "flush ruleset"], check=True)
    ran = await call
    assert ran.stdout.count("GET") == 1
    assert "Network is unreachable" in ran.stderr


async def test_a_full_segment_is_a_named_refusal(
    egress: Egress, network: Network, make_sandbox: MakeSandbox
) -> None:
    others = [make_sandbox() for _ in range(network.status().sandboxes_max)]
    for other in others:
        network.attach(other.route, uid=0)
    with pytest.raises(EgressRefused) as refused:
        await egress(FETCH)
    assert refused.value.fields == {"step": "egress", "reason": "SegmentFull"}
    for other in others:
        other.end()
    assert until(lambda: not links())
    assert (await egress("print(1)")).exit_code == 0


async def test_without_a_network_room_there_is_no_egress(
    launcher: Launcher, config: Config, planner: Planner
) -> None:
    isolator = Isolator(planner, launcher, LinuxMachine(None), queue_of(config), config.drain_s)
    with pytest.raises(EgressRefused) as refused:
        await isolator.run(spec_text("/usr/bin/true", network="egress"), os.open(os.devnull, os.O_RDONLY), "")
    assert refused.value.fields["reason"] == "Unavailable"


async def test_bubblewrap_refuses_it(config: Config, planner: Planner, beside: Beside) -> None:
    sandbox = Bubblewrap(config.bubblewrap, config.confine, None)
    isolator = isolator_with(sandbox, config, planner, beside)
    with pytest.raises(SandboxRefused) as refused:
        await isolator.run(spec_text("/usr/bin/true", network="egress"), os.open(os.devnull, os.O_RDONLY), "")
    assert refused.value.step == "egress"


async def test_a_plan_with_the_way_out_can_be_printed(
    launcher: Launcher, config: Config, planner: Planner, beside: Beside
) -> None:
    isolator = isolator_with(launcher, config, planner, beside)
    plan = await isolator.plan(spec_text("/usr/bin/true", network="egress"))
    assert plan["network"] == "198.19.255.1:8118"
    assert beside.attached == 0
