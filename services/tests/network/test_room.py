"""The room's files, its bus face and its settings."""

from __future__ import annotations

import configparser
import json
import os
import pwd
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clawos.core.bus import Bus
from clawos.core.errors import ConfigInvalid, RemoteError
from clawos.core.parse import from_toml
from clawos.network.config import ROOM, Config
from clawos.network.errors import NotASandbox
from clawos.network.firewall import rules
from clawos.network.interface import NetworkInterface
from clawos.network.service import Network

from .conftest import MakeSandbox

SRC = Path(__file__).parents[2] / "src"
SYSTEM = SRC / "clawos" / "network" / "system"

Connect = Callable[[], Awaitable[Bus]]


@pytest.fixture
async def served(network: Network, connect: Connect) -> Bus:
    server = await connect()
    await server.serve(ROOM.bus_name, ROOM.object_path, NetworkInterface(network))
    return await connect()


@pytest.mark.processes
async def test_attach_over_the_bus(served: Bus, make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    (told,) = await served.call(ROOM.bus_name, "Attach", fds=(sandbox.route,))
    assert json.loads(told) == {"address": "198.18.0.1", "proxy": "198.19.255.1", "port": 8118}
    (status,) = await served.call(ROOM.bus_name, "Status")
    assert json.loads(status) == {
        "proxy": "198.19.255.1",
        "port": 8118,
        "sandboxes": 1,
        "sandboxes_max": 4,
        "firewall": "loaded",
        "program": False,
    }


@pytest.mark.processes
async def test_errors_have_their_names_and_leave_no_descriptor(served: Bus) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(RemoteError) as refused:
            await served.call(ROOM.bus_name, "Attach", fds=(0,))
        assert refused.value.is_a(NotASandbox)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.processes
@pytest.mark.parametrize(
    ("user", "may"),
    [("root", True), ("clawos-isolator", True), ("clawos-agent", False), ("clawos-sandbox", False)],
)
async def test_who_may_call(
    served: Bus, call_as: Callable[..., Awaitable[dict[str, Any]]], user: str, may: bool
) -> None:
    answer = await call_as(user, ROOM.bus_name, "Status")
    assert ("ok" in answer) is may, answer
    if not may:
        assert answer["error"].endswith("AccessDenied")


@pytest.mark.processes
async def test_each_makes_sandboxes_for_himself_only(
    served: Bus, network: Network, make_sandbox: MakeSandbox
) -> None:
    isolator = make_sandbox(uid=pwd.getpwnam("clawos-isolator").pw_uid)
    with pytest.raises(RemoteError) as refused:  # we are root here
        await served.call(ROOM.bus_name, "Attach", fds=(isolator.route,))
    assert refused.value.is_a(NotASandbox)


@pytest.mark.processes
def test_the_snapshot_is_what_we_serve(network: Network) -> None:
    described = NetworkInterface(network).describe(ROOM.bus_name)
    assert (SYSTEM / f"{ROOM.bus_name}.xml").read_text().strip() == described.strip()


def test_shipped_settings_are_the_defaults() -> None:
    shipped = (SYSTEM / "network.toml").read_text()
    settings = "\n".join(line[2:] for line in shipped.splitlines() if line.startswith("# ") and " = " in line)
    parsed = tomllib.loads(settings)
    assert set(parsed) == set(Config.__struct_fields__)
    paths = {name: Path(parsed.pop(name)) for name in ("program", "nft")}
    assert msgspec.structs.replace(msgspec.convert(parsed, Config), **paths) == Config()
    assert from_toml(SYSTEM / "network.toml", Config) == Config()


@pytest.mark.parametrize(
    "text",
    [
        'proxy = "198.18.0.7"',  # one of the sandboxes'
        'proxy = "198.19.255.1; flush ruleset"',
        'proxy = "::1"',
        'sandboxes = "198.18.0.1/16"',
        'sandboxes = "198.18.0.0/24"',  # fewer than may be at a time
        "port = 0",
        "sandboxes_max = 100000",
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "network.toml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid):
        from_toml(file, Config)


def test_every_chain_drops_by_default() -> None:
    text = rules("198.19.255.1", 8118)
    assert text.count("type filter hook") == text.count("policy drop;") == 3
    assert text.count("accept") == 2


def test_the_unit_holds_one_capability_in_a_namespace_of_its_own() -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SYSTEM / ROOM.unit)
    service = unit["Service"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_NET_ADMIN"
    assert service["PrivateNetwork"] == "yes"


def test_only_messages_are_imported() -> None:
    """Of pyroute2; its sockets and databases cost three times as much."""
    code = "import sys, clawos.network.__main__; print(*(m for m in sys.modules if m.startswith('pyroute2')))"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    found = {".".join(name.split(".")[:3]) for name in done.stdout.split()}
    assert found == {
        "pyroute2",
        "pyroute2.common",
        "pyroute2.config",
        "pyroute2.netlink",
        "pyroute2.netlink.exceptions",
        "pyroute2.netlink.rtnl",
    }
