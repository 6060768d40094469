"""What gets through a sandbox's link: the way to the proxy, and nothing else. In real namespaces."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clawos.network.config import Config
from clawos.network.errors import FirewallChanged, LinkRefused, NotASandbox, SegmentFull
from clawos.network.links import _address, _pair, _raise
from clawos.network.netlink import send
from clawos.network.ports import Link
from clawos.network.service import Network

from .conftest import TIMEOUT_S, MakeSandbox, Sandbox, is_kept_off, links, reaches, until

pytestmark = pytest.mark.processes

Listen = Callable[..., socket.socket]
OTHER_PORT = 9999


def change_rules(config: Config, command: str) -> None:
    subprocess.run([config.nft, command], check=True)


def attach(network: Network, sandbox: Sandbox) -> str:
    return network.attach(sandbox.route, uid=0).address


async def test_the_proxy_is_reached_from_the_sandboxs_address(
    network: Network, config: Config, make_sandbox: MakeSandbox, listen: Listen
) -> None:
    proxy = listen(config.proxy, config.port)
    sandbox = make_sandbox()
    told = network.attach(sandbox.route, uid=0)
    assert (told.proxy, told.port) == (config.proxy, config.port)
    with sandbox.inside(), socket.create_connection((told.proxy, told.port), TIMEOUT_S) as call:
        answer, (source, _) = proxy.accept()
        assert source == told.address
        call.sendall(b"GET")
        assert answer.recv(3) == b"GET"
        answer.sendall(b"200")
        assert call.recv(3) == b"200"
        answer.close()


async def test_no_other_port_and_no_datagram(
    network: Network, config: Config, make_sandbox: MakeSandbox, listen: Listen
) -> None:
    listen("0.0.0.0", OTHER_PORT)
    datagrams = listen("0.0.0.0", config.port, socket.SOCK_DGRAM)
    sandbox = make_sandbox()
    attach(network, sandbox)
    with sandbox.inside():
        assert is_kept_off(config.proxy, OTHER_PORT)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (config.proxy, config.port))
    with pytest.raises(TimeoutError):
        datagrams.recv(1)
    change_rules(config, "flush ruleset")
    with sandbox.inside():  # positive control: it is the rules that keep them off
        assert reaches(config.proxy, OTHER_PORT)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (config.proxy, config.port))
    assert datagrams.recv(1) == b"x"


@pytest.mark.parametrize(
    "address", ["10.0.2.2", "169.254.169.254", "192.168.1.1", "1.1.1.1", "127.0.0.53", "198.19.255.2"]
)
async def test_there_is_no_route_to_anywhere_else(
    network: Network, config: Config, make_sandbox: MakeSandbox, listen: Listen, address: str
) -> None:
    sandbox = make_sandbox()
    attach(network, sandbox)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        send(route, [_address(1, address, 0)])
    change_rules(config, "flush ruleset")
    listen(address, 80)
    assert reaches(address, 80), "positive control: the segment has the address, and no rule is left"
    with sandbox.inside():
        assert is_kept_off(address, 80)


async def test_sandboxes_do_not_reach_each_other(
    network: Network, config: Config, make_sandbox: MakeSandbox
) -> None:
    one, other = make_sandbox(), make_sandbox()
    attach(network, one)
    address = attach(network, other)
    with other.inside(), socket.create_server((address, config.port)):
        assert reaches(address, config.port)
        with one.inside():
            assert is_kept_off(address, config.port)


async def test_nobody_calls_into_a_sandbox(
    network: Network, config: Config, make_sandbox: MakeSandbox
) -> None:
    sandbox = make_sandbox()
    address = attach(network, sandbox)
    with sandbox.inside():
        server = socket.create_server((address, 80))
    with server:
        assert is_kept_off(address, 80)
        assert is_kept_off(address, 80, source=config.proxy)
        change_rules(config, "flush ruleset")
        assert reaches(address, 80, source=config.proxy)


async def test_a_foreign_source_address_is_dropped(
    network: Network, config: Config, make_sandbox: MakeSandbox, listen: Listen
) -> None:
    listen(config.proxy, config.port)
    sandbox, victim = make_sandbox(), make_sandbox()
    own = attach(network, sandbox)
    foreign = attach(network, victim)
    index = 1000 + int(own.rpartition(".")[2])
    with sandbox.route_socket() as route:  # what nothing in a sandbox may: an address
        send(route, [_address(index, foreign, 0)])
    with sandbox.inside():
        assert reaches(config.proxy, config.port, source=own)
        assert is_kept_off(config.proxy, config.port, source=foreign)


async def test_there_is_no_ipv6(network: Network, make_sandbox: MakeSandbox) -> None:
    sandbox, control = make_sandbox(), make_sandbox()
    attach(network, sandbox)
    assert "eth0" not in ipv6_of(sandbox)
    link = Link(slot=77, address="198.18.0.77")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as here, control.route_socket() as there:
        send(here, [_pair(link, control.network), _raise(link.index)])
        send(there, [_raise(link.index)])
    assert "eth0" in ipv6_of(control), "positive control: what just goes up gets a link-local address"


def ipv6_of(sandbox: Sandbox) -> str:
    with sandbox.inside():
        return Path("/proc/thread-self/net/if_inet6").read_text()


async def test_a_link_ends_with_its_sandbox(network: Network, make_sandbox: MakeSandbox) -> None:
    for _ in range(10):  # more than may be at a time: places come free
        sandbox = make_sandbox()
        attach(network, sandbox)
        assert len(links()) == 1
        sandbox.end()
        assert until(lambda: not links())


async def test_each_gets_an_address_of_its_own(network: Network, make_sandbox: MakeSandbox) -> None:
    addresses = []
    for _ in range(3):
        sandbox = make_sandbox()
        addresses.append(attach(network, sandbox))
        sandbox.end()
    assert len(set(addresses)) == 3, "an address does not come again at once"


async def test_more_than_may_be_are_refused(
    network: Network, config: Config, make_sandbox: MakeSandbox
) -> None:
    sandboxes = [make_sandbox() for _ in range(config.sandboxes_max + 1)]
    for sandbox in sandboxes[:-1]:
        attach(network, sandbox)
    with pytest.raises(SegmentFull):
        attach(network, sandboxes[-1])
    sandboxes[0].end()
    assert until(lambda: len(links()) < config.sandboxes_max)
    attach(network, sandboxes[-1])


@pytest.mark.parametrize(
    "change",
    ["delete table inet clawos", "flush ruleset", "add rule inet clawos input accept", "add table inet x"],
)
async def test_changed_rules_let_nobody_in(
    network: Network, config: Config, make_sandbox: MakeSandbox, change: str
) -> None:
    attach(network, make_sandbox())
    assert network.status().firewall == "loaded"
    change_rules(config, change)
    with pytest.raises(FirewallChanged):
        attach(network, make_sandbox())
    assert network.status().firewall == "changed"
    assert len(links()) == 1
    await network.open()
    assert links() == set(), "what was there before a start is gone"
    attach(network, make_sandbox())


async def test_what_is_no_sandboxs_socket_is_refused(network: Network, make_sandbox: MakeSandbox) -> None:
    netlink = socket.AF_NETLINK, socket.SOCK_RAW
    sandbox = make_sandbox()
    with sandbox.inside():
        netfilter = socket.socket(*netlink, 12)
    others = make_sandbox(uid=65534)
    with netfilter, socket.socket(*netlink, 0) as ours, socket.socket(socket.AF_UNIX) as local:
        for fd in (netfilter.fileno(), ours.fileno(), local.fileno(), others.route):
            with pytest.raises(NotASandbox):
                network.attach(fd, uid=0)
    assert links() == set()
    assert network.attach(others.route, uid=65534).address, "the one who made it may"


async def test_a_link_is_made_in_full_or_not_at_all(
    network: Network, config: Config, make_sandbox: MakeSandbox
) -> None:
    sandbox = make_sandbox()
    attach(network, sandbox)
    with pytest.raises(LinkRefused) as refused:  # the namespace has its eth0
        attach(network, sandbox)
    assert refused.value.fields == {"step": "pair", "errno": "EEXIST"}
    assert len(links()) == 1
