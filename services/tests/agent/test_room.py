"""The room's files, and the service as the system starts it."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import pwd
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from agent.conftest import TOOLS, Client, ConnectAs, MakeWorld

from clawos.agent.config import ROOM, AgentConfig
from clawos.agent.interface import AgentInterface
from clawos.core.bus import Bus
from clawos.core.errors import RemoteError, Unavailable
from clawos.core.parse import from_toml

SRC = Path(__file__).parents[2] / "src"
SYSTEM = SRC / "clawos" / "agent" / "system"


async def test_members_are_as_written_down(make_world: MakeWorld) -> None:
    world = await make_world()
    described = AgentInterface(world.service, world.buses[0]).describe(ROOM.bus_name)
    assert (SYSTEM / f"{ROOM.bus_name}.xml").read_text().strip() == described.strip()


def test_shipped_settings_are_the_defaults() -> None:
    shipped = (SYSTEM / "agent.toml").read_text()
    settings = "\n".join(line[2:] for line in shipped.splitlines() if line.startswith("# ") and " = " in line)
    parsed = tomllib.loads(settings)
    assert set(parsed) == set(AgentConfig.__struct_fields__)
    assert (
        msgspec.convert(parsed, AgentConfig) == AgentConfig() == from_toml(SYSTEM / "agent.toml", AgentConfig)
    )


def test_unit_is_this_rooms() -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SYSTEM / ROOM.unit)
    service = unit["Service"]
    assert (service["User"], service["BusName"]) == (ROOM.user, ROOM.bus_name)
    assert service["ExecStart"] == f"/usr/bin/python3 -I -m {ROOM.package}"
    assert service["StateDirectory"] == str(ROOM.state_dir.relative_to("/var/lib"))
    assert (service["Type"], service["WatchdogSec"], service["Restart"]) == ("notify", "60", "on-failure")
    activation = configparser.RawConfigParser()
    activation.read(SYSTEM / f"{ROOM.bus_name}.service")
    assert activation["D-BUS Service"]["systemdservice"] == ROOM.unit
    assert activation["D-BUS Service"]["name"] == ROOM.bus_name


# As another user from the start it could not read a virtual environment in root's home.
_AS_ITS_USER = """
import os, sys
import clawos.agent.__main__ as room
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
sys.exit(room.serve(room.ROOM, room._build))
"""


@asynccontextmanager
async def _running(state: Path, bus_address: str, config: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The real service, as its own user, on the private bus."""
    who = pwd.getpwnam(ROOM.user)
    state.mkdir(exist_ok=True)
    for path in (state, *state.iterdir()):
        os.chown(path, who.pw_uid, who.pw_gid)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(SRC),
        "DBUS_SYSTEM_BUS_ADDRESS": bus_address,
        "STATE_DIRECTORY": str(state),
        "CLAWOS_CONFIG_DIR": str(config),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _AS_ITS_USER,
        str(who.pw_uid),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            line = await process.stderr.readline()
        assert b"is ready" in line, line + await process.stderr.read()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_service_starts_serves_survives_a_kill_and_stops(
    bus_address: str, connect_as: ConnectAs, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path.parent):
        path.chmod(0o755)
    (tmp_path / "agent.toml").write_text(f'tool_directories = ["{TOOLS}"]\n')
    client = Client(await connect_as("mail", "clawos"))
    async with _running(tmp_path / "state", bus_address, tmp_path) as process:
        session = await client.open()
        (status,) = await client.call("Status")
        assert json.loads(status)["tools"] == len(list(TOOLS.glob("*.toml")))
        # Nobody serves models here: the turn says which unit is missing.
        events = await client.ask("hello")
        assert [e["name"] for e in events if e["type"] == "error"] == ["org.clawos.Error.Unavailable"]
        assert "clawos-inference" in next(e["hint"] for e in events if e["type"] == "error")
        assert events[-1]["status"] == "failed"
        resident_kib = _resident_kib(process.pid)
        assert resident_kib < 35 * 1024, f"{resident_kib} KiB resident"
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with _running(tmp_path / "state", bus_address, tmp_path) as process:
        assert await client.open() == session
        assert [m["role"] for m in await client.history()] == ["user"]
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert [p.stat().st_uid for p in (tmp_path / "state").iterdir()] == [pwd.getpwnam(ROOM.user).pw_uid]


def _resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


async def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, clawos.agent.__main__; heavy = 'numpy', 'llama_cpp', 'jinja2', 'prompt_toolkit'; "
        "print([m for m in heavy if m in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={"PYTHONPATH": str(SRC)}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.strip() == b"[]"


Connect = Callable[[], Awaitable[Bus]]


async def test_nobody_starts_the_agent_means_unavailable(connect: Connect) -> None:
    bus = await connect()
    error: Any = None
    try:
        await bus.call(ROOM.bus_name, "Status")
    except (RemoteError, Unavailable) as caught:
        error = caught
    assert isinstance(error, Unavailable)
    assert error.fields["unit"] == "clawos-agent"
