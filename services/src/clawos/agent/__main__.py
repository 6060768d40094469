"""Run the agent: `python3 -m clawos.agent`."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from clawos.agent.config import ROOM, AgentConfig
from clawos.agent.interface import AgentInterface
from clawos.agent.kit import Kit
from clawos.agent.registry import Registry
from clawos.agent.remote import BusModel, BusSandbox
from clawos.agent.service import AgentService
from clawos.agent.store import SqliteStore
from clawos.core.bus import Bus
from clawos.core.config import load
from clawos.core.main import serve


async def _build(bus: Bus) -> tuple[AgentService, AgentInterface]:
    config = load(ROOM, AgentConfig)
    state_dir = Path(os.environ.get("STATE_DIRECTORY", ROOM.state_dir))
    store = await SqliteStore.open(state_dir / "agent.db", config.turns_per_session)
    registry = Registry([Path(d) for d in config.tool_directories])
    registry.load()
    service = AgentService(
        Kit(BusModel(bus), BusSandbox(bus), store, registry, config), lambda uid: pwd.getpwuid(uid).pw_name
    )
    service.start()
    return service, AgentInterface(service, bus)


if __name__ == "__main__":
    raise SystemExit(serve(ROOM, _build))
