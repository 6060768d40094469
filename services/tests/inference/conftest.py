"""The room on a private bus, with real llama.cpp and small models of random weights."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from inference import tinymodel

from clawos.core.bus import Bus
from clawos.core.stream import read_json_lines
from clawos.inference.config import ROOM, Config
from clawos.inference.engine import Engine
from clawos.inference.interface import Inference
from clawos.inference.registry import Registry
from clawos.inference.service import Service

TOOLS: list[dict[str, Any]] = [
    {
        "name": "file.read",
        "description": "Show the content of a file.",
        "parameters": {
            "type": "object",
            "required": ["path"],
            "properties": {
                "path": {"type": "string", "minLength": 1, "maxLength": 40},
                "lines": {"type": "integer", "minimum": 1, "maximum": 100},
            },
        },
    },
    {
        "name": "memory.usage",
        "description": "Show memory.",
        "parameters": {"type": "object", "properties": {}},
    },
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers with random text."""
    return tinymodel.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def caller_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that opens a tool call as soon as it may."""
    tokens, _, _ = tinymodel.tokens_and_types()
    opens = tokens.index("<tool_call>")
    return tinymodel.write(tmp_path_factory.mktemp("gguf") / "caller.gguf", always=opens)


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says one letter for ever and has a large context."""
    tokens, _, _ = tinymodel.tokens_and_types()
    return tinymodel.write(
        tmp_path_factory.mktemp("gguf") / "talker.gguf",
        always=tokens.index("a"),
        context=8192,
        width=64,
        layers=2,
    )


@dataclass
class Room:
    """The service as a client sees it, and its files."""

    bus: Bus
    service: Service
    config: Config

    async def call(self, member: str, *arguments: str, fds: tuple[int, ...] = ()) -> Any:
        reply = await self.bus.call(ROOM.bus_name, member, *arguments, fds=fds)
        return reply[0] if len(reply) == 1 else reply

    async def start(self, text: str = "hello", **request: Any) -> tuple[str, int]:
        """Begin a chat; returns its id and the descriptor of its events."""
        body = {"messages": [{"role": "user", "content": text}], **request}
        chat, fd = await self.bus.call(ROOM.bus_name, "Chat", msgspec.json.encode(body).decode())
        return chat, fd

    async def chat(self, text: str = "hello", **request: Any) -> list[dict[str, Any]]:
        _, fd = await self.start(text, **request)
        return [event async for event in read_json_lines(fd)]

    async def status(self) -> dict[str, Any]:
        return msgspec.json.decode(await self.call("Status"), type=dict[str, Any])

    async def models(self) -> dict[str, dict[str, Any]]:
        return {
            m["name"]: m for m in msgspec.json.decode(await self.call("Models"), type=list[dict[str, Any]])
        }


MakeRoom = Callable[..., Awaitable[Room]]


@pytest.fixture
async def make_room(tmp_path: Path, connect: Callable[[], Awaitable[Bus]]) -> AsyncIterator[MakeRoom]:
    """Start the room with this built-in model, on the private bus."""
    services: list[Service] = []

    async def make(builtin: Path, **settings: Any) -> Room:
        for name in ("models", "state"):
            (tmp_path / name).mkdir(exist_ok=True)
        config = Config(
            builtin=builtin, models=tmp_path / "models", state=tmp_path / "state", threads=1, **settings
        )
        server = await connect()
        service = Service(config, Registry(config), Engine(config), server)
        services.append(service)
        await server.serve(ROOM.bus_name, ROOM.object_path, Inference(service))
        return Room(await connect(), service, config)

    yield make
    for service in services:
        await service.close()
