"""Shared by all rooms' tests: a private bus with the real policy files, and the shut process door."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import clawos.core.run
from clawos.core.bus import Bus
from clawos.core.errors import ClawError

ROOMS = Path(__file__).parents[1] / "src" / "clawos"

_DAEMON_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_destination="org.clawos.Test1"/>
  </policy>
  <policy user="root"><allow own="org.clawos.Test1"/></policy>
{includes}
</busconfig>
"""


@pytest.fixture(scope="session")
def bus_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a private dbus-daemon under the rules of a system bus plus every room's own policy file."""
    directory = tmp_path_factory.mktemp("bus")
    directory.parent.chmod(0o755)
    directory.parent.parent.chmod(0o755)
    directory.chmod(0o755)
    socket = directory / "socket"
    policies = sorted(ROOMS.glob("*/system/org.clawos.*.conf"))
    includes = "\n".join(f"  <include>{p}</include>" for p in policies)
    config = directory / "bus.conf"
    config.write_text(_DAEMON_CONFIG.format(socket=socket, includes=includes))
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    address = daemon.stdout.readline().strip()
    assert address, "dbus-daemon did not start"
    yield address
    daemon.terminate()
    daemon.wait(10)
    daemon.stdout.close()


@pytest.fixture
async def connect(bus_address: str) -> AsyncIterator[Callable[[], Awaitable[Bus]]]:
    """Make connections to the private bus (as the user that runs the tests); closed afterwards."""
    made: list[Bus] = []

    async def _connect() -> Bus:
        bus = await Bus.connect(bus_address)
        made.append(bus)
        return bus

    yield _connect
    for bus in reversed(made):
        await bus.close()


_CALL_AS = """
import asyncio, json, os, sys
# Before the user changes: the packages may stand where only root may look.
from clawos.core.bus import Bus
from clawos.core.errors import ClawError
uid, address, name, member, arguments = json.loads(sys.argv[1])
os.setgroups([]) ; os.setgid(uid) ; os.setuid(uid)
async def main():
    try:
        bus = await Bus.connect(address)
        reply = await bus.call(name, member, *arguments)
        return {"ok": [v for v in reply if isinstance(v, str)]}
    except ClawError as error:
        return {"error": error.bus_name, "message": error.message}
print(json.dumps(asyncio.run(main())))
"""


@pytest.fixture
def call_as(bus_address: str) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Call a member as another user: `await call_as("clawos-agent", bus_name, member, *strings)`.

    Answers {"ok": [strings]} or {"error": name, "message": text}. Needs root (the tools root has it).
    """

    async def _call(user: str, name: str, member: str, *arguments: str) -> dict[str, Any]:
        uid = pwd.getpwnam(user).pw_uid
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _CALL_AS,
            json.dumps([uid, bus_address, name, member, arguments]),
            env={**os.environ, "PYTHONPATH": str(ROOMS.parent)},
            stdout=asyncio.subprocess.PIPE,
        )
        stdout, _ = await process.communicate()
        result: dict[str, Any] = json.loads(stdout)
        return result

    return _call


@pytest.fixture(autouse=True)
def _process_door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test starts a process through `core.run` unless it is marked `processes`."""
    if request.node.get_closest_marker("processes"):
        return

    async def shut(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"a test started a process: {args[0]}")

    monkeypatch.setattr(clawos.core.run, "spawn", shut)


def error_name(error: pytest.ExceptionInfo[ClawError]) -> str:
    """Last word of an error's bus name."""
    return error.value.bus_name.rpartition(".")[2]
