"""The network room, as the isolator knows it."""

from __future__ import annotations

import msgspec

from clawos.core.bus import Bus
from clawos.core.errors import ClawError
from clawos.core.names import Room
from clawos.core.parse import from_json
from clawos.isolator.errors import EgressRefused
from clawos.isolator.plan import Proxy

_NAME = Room("network").bus_name


class _Told(msgspec.Struct, frozen=True):
    """What we need of an answer."""

    proxy: str
    port: int


class NetworkRoom:
    """A `Network` on the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._proxy: Proxy | None = None

    async def proxy(self) -> Proxy:
        """What was told last: each call that is linked anew asks again."""
        return self._proxy or await self._ask("Status")

    async def attach(self, route: int) -> Proxy:
        return await self._ask("Attach", route)

    async def _ask(self, member: str, *fds: int) -> Proxy:
        try:
            (answer,) = await self._bus.call(_NAME, member, fds=fds)
            told = from_json(answer, _Told, _NAME)
        except ClawError as error:
            self._proxy = None
            raise EgressRefused(error) from None
        self._proxy = Proxy(told.proxy, told.port)
        return self._proxy
