"""The isolator and the agent, over the bus."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from clawos.core.bus import Bus
from clawos.core.names import Room
from clawos.core.parse import from_json
from clawos.monitor.ports import CallInfo

ISOLATOR = Room("isolator").bus_name
AGENT = Room("agent").bus_name


class _Told(msgspec.Struct):
    """What we need of what `Calls` answers; more is passed over."""

    id: str
    tool: str
    user: int
    session: str
    ended: bool


class BusIsolator:
    """`ports.Isolator`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def calls(self) -> Sequence[CallInfo]:
        (text,) = await self._bus.call(ISOLATOR, "Calls")
        return [
            CallInfo(id=one.id, tool=one.tool, user=one.user, session=one.session, ended=one.ended)
            for one in from_json(text, list[_Told], ISOLATOR)
        ]

    async def end(self, call: str, reason: str) -> bool:
        (answer,) = await self._bus.call(ISOLATOR, "End", call, reason)
        return from_json(answer, bool, ISOLATOR)


class BusAgent:
    """`ports.Agent`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def freeze(self, session: str, reason: str) -> None:
        await self._bus.call(AGENT, "Freeze", session, reason)
