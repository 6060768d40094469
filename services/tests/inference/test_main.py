"""The room as systemd runs it: a process of its own, ready, answering, and gone when told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from inference.test_tags import REAL

import clawos
from clawos.core.bus import Bus
from clawos.core.errors import ConfigInvalid
from clawos.core.parse import from_toml
from clawos.core.stream import read_json_lines
from clawos.inference.config import ROOM, Config

Connect = Callable[[], Awaitable[Bus]]
ASK = '{"messages":[{"role":"user","content":"hello"}],"max_tokens":8000,"temperature":0}'
IDLE_BYTES = 90_000_000


@asynccontextmanager
async def running(
    builtin: Path, directory: Path, bus_address: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the room with this model and wait until it says that it is ready."""
    for name in ("models", "state", "config"):
        (directory / name).mkdir()
    (directory / "config" / "inference.toml").write_text(
        f'builtin = "{builtin}"\nmodels = "{directory}/models"\nstate = "{directory}/state"\nthreads = 1\n'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(directory / "notify"))
        notify.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            ROOM.package,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(clawos.__path__[0]).parent),
                "DBUS_SYSTEM_BUS_ADDRESS": bus_address,
                "CLAWOS_CONFIG_DIR": str(directory / "config"),
                "NOTIFY_SOCKET": str(directory / "notify"),
            },
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(60):
                assert await asyncio.get_running_loop().sock_recv(notify, 100) == b"READY=1"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def wait_until_loaded(bus: Bus) -> dict[str, object]:
    async with asyncio.timeout(60):
        while True:
            (text,) = await bus.call(ROOM.bus_name, "Status")
            status = msgspec.json.decode(text, type=dict[str, object])
            if status["loaded"]:
                return status
            await asyncio.sleep(0.1)


async def test_told_to_stop_it_ends_the_chat_under_way_and_goes(
    talker: Path, tmp_path: Path, bus_address: str, connect: Connect
) -> None:
    async with running(talker, tmp_path, bus_address) as process:
        bus = await connect()
        await wait_until_loaded(bus)
        _, fd = await bus.call(ROOM.bus_name, "Chat", ASK)
        events: list[dict[str, Any]] = []
        async for event in read_json_lines(fd):
            if not events:
                process.send_signal(signal.SIGTERM)
            events.append(event)
        assert events[-1]["finish"] == "cancelled"
        async with asyncio.timeout(30):
            assert await process.wait() == 0
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.read()


async def test_without_a_model_it_starts_and_says_so(
    tmp_path: Path, bus_address: str, connect: Connect
) -> None:
    async with running(tmp_path / "none.gguf", tmp_path, bus_address):
        (models,) = await (await connect()).call(ROOM.bus_name, "Models")
        assert b"No such file" in models.encode()


def test_a_setting_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "inference.toml"
    path.write_text("models = 3\n")
    with pytest.raises(ConfigInvalid, match=r"models"):
        from_toml(path, Config)


async def test_idle_with_a_model_it_stays_small(
    talker: Path, tmp_path: Path, bus_address: str, connect: Connect
) -> None:
    model = REAL if REAL.exists() else talker
    async with running(model, tmp_path, bus_address):
        status = await wait_until_loaded(await connect())
        assert isinstance(status["resident_bytes"], int)
        assert status["resident_bytes"] < IDLE_BYTES, status
