"""An agent on the private bus, under its real user and policy, between two fakes under theirs."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from agent.fakes import FakeInference, FakeIsolator

from clawos.agent.config import ROOM, AgentConfig
from clawos.agent.interface import AgentInterface
from clawos.agent.kit import Kit
from clawos.agent.registry import Registry
from clawos.agent.remote import INFERENCE, ISOLATOR, BusModel, BusSandbox
from clawos.agent.service import AgentService
from clawos.agent.store import SqliteStore
from clawos.core.bus import Bus, Interface
from clawos.core.stream import read_json_lines

POLICIES = Path(__file__).parents[3] / "policies"
TOOLS = POLICIES / "tools"

ConnectAs = Callable[..., Awaitable[Bus]]


@pytest.fixture
async def connect_as(bus_address: str) -> AsyncIterator[ConnectAs]:
    """Connect to the private bus as another user; the daemon takes the credentials of that moment."""
    made: list[Bus] = []

    async def connect(user: str, *groups: str) -> Bus:
        who = pwd.getpwnam(user)
        before = os.getgroups()
        os.setgroups([who.pw_gid, *(grp.getgrnam(g).gr_gid for g in groups)])
        os.setresgid(who.pw_gid, who.pw_gid, 0)
        os.setresuid(who.pw_uid, who.pw_uid, 0)
        try:
            bus = await Bus.connect(bus_address)
        finally:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(before)
        made.append(bus)
        return bus

    yield connect
    for bus in reversed(made):
        await bus.close()


@dataclass
class Client:
    """A user of the agent."""

    bus: Bus
    session: str = ""

    async def call(self, member: str, *arguments: str, fds: tuple[int, ...] = ()) -> list[Any]:
        return await self.bus.call(ROOM.bus_name, member, *arguments, fds=fds)

    async def open(self, **options: Any) -> str:
        (self.session,) = await self.call("OpenSession", json.dumps(options))
        return self.session

    async def start(self, text: str, **options: Any) -> int:
        """Begin a turn; returns the descriptor of its events."""
        if not self.session:
            await self.open()
        _, fd = await self.call("Ask", self.session, json.dumps({"text": text, **options}))
        assert isinstance(fd, int)
        return fd

    async def ask(self, text: str, **options: Any) -> list[dict[str, Any]]:
        """A whole turn, as the list of its events."""
        fd = await self.start(text, **options)
        async with asyncio.timeout(20):
            return [event async for event in read_json_lines(fd)]

    async def history(self) -> list[dict[str, Any]]:
        (text,) = await self.call("History", self.session)
        parsed: list[dict[str, Any]] = json.loads(text)
        return parsed

    async def approve(self, call: str, decision: str, **more: Any) -> None:
        await self.call("Approve", self.session, json.dumps({"call": call, "decision": decision, **more}))


@dataclass
class World:
    """The agent and what is round it."""

    model: FakeInference
    sandbox: FakeIsolator
    service: AgentService
    registry: Registry
    store: SqliteStore
    client: Client
    connect_as: ConnectAs
    buses: list[Bus]

    async def stop(self) -> None:
        """End the service and everything round it, as a restart of the machine does."""
        await self.service.close()
        for bus in self.buses:
            await bus.close()

    async def other(self, user: str = "games", *groups: str) -> Client:
        return Client(await self.connect_as(user, *(groups or ("clawos",))))


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(connect_as: ConnectAs, tmp_path: Path) -> AsyncIterator[MakeWorld]:
    services: list[AgentService] = []

    async def make(
        model: FakeInference | None = None,
        sandbox: FakeIsolator | None = None,
        *,
        config: AgentConfig | None = None,
        tools: tuple[Path, ...] = (TOOLS,),
    ) -> World:
        model, sandbox = model or FakeInference(), sandbox or FakeIsolator()
        fakes: list[tuple[str, str, Interface]] = [
            ("clawos-inference", INFERENCE, model),
            ("clawos-isolator", ISOLATOR, sandbox),
        ]
        buses = [bus := await connect_as(ROOM.user)]
        for user, name, fake in fakes:
            buses.append(beside := await connect_as(user))
            await beside.serve(name, "/" + name.replace(".", "/"), fake)
        config = config or AgentConfig()
        store = await SqliteStore.open(tmp_path / "agent.db", config.turns_per_session)
        registry = Registry(tools)
        registry.load()
        kit = Kit(BusModel(bus), BusSandbox(bus), store, registry, config)
        service = AgentService(kit, lambda uid: pwd.getpwuid(uid).pw_name)
        service.start()
        services.append(service)
        await bus.serve(ROOM.bus_name, ROOM.object_path, AgentInterface(service, bus))
        client = Client(await connect_as("mail", "clawos"))
        return World(model, sandbox, service, registry, store, client, connect_as, buses)

    yield make
    for service in services:
        await service.close()
