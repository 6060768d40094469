"""Network namespaces that are linked to the egress service, a few of them ahead; each is for one sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from clawos.isolator.errors import SandboxRefused
from clawos.isolator.plan import Proxy
from clawos.isolator.ports import Network

AHEAD = 2
"""As many as a small machine has processors: to link one takes about as long as to run a short call."""

_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40
_REQUEST = struct.Struct("16sH14x")
_INTERFACE = b"eth0"


@dataclass(frozen=True)
class Way:
    """One namespace, and the route socket that was opened in it."""

    network: int
    route: int
    proxy: Proxy

    def leads_out(self) -> bool:
        """Does the link still stand? The network room takes it away where the rules around it changed."""
        try:
            answer = fcntl.ioctl(self.route, _SIOCGIFFLAGS, _REQUEST.pack(_INTERFACE, 0))
        except OSError:
            return False
        return bool(_REQUEST.unpack(answer)[1] & _IFF_RUNNING)

    def close(self) -> None:
        os.close(self.network)
        os.close(self.route)


class Ways:
    """Those of one launcher. None is made before the first call that wants one."""

    def __init__(self, lend: Callable[[], Awaitable[tuple[int, int]]], network: Network) -> None:
        """`lend`: a namespace of the launcher's and a route socket in it."""
        self._lend = lend
        self._network = network
        self._ready: deque[Way] = deque()
        self._filling: asyncio.Task[None] | None = None

    async def take(self, proxy: Proxy) -> int:
        """A namespace that leads to `proxy` and nowhere else, the caller's to close.

        Raises SandboxRefused, OSError.
        """
        while self._ready:
            way = self._ready.popleft()
            if way.proxy == proxy and way.leads_out():
                break
            way.close()
        else:
            way = await self._make()
        if way.proxy != proxy:
            way.close()
            raise SandboxRefused("egress", f"the egress service has moved to {way.proxy}; try again")
        os.close(way.route)
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill())
        return way.network

    async def close(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        while self._ready:
            self._ready.popleft().close()

    async def _fill(self) -> None:
        with contextlib.suppress(SandboxRefused, OSError):  # the next call hears why, and the journal with it
            while len(self._ready) < AHEAD:
                self._ready.append(await self._make())

    async def _make(self) -> Way:
        network, route = await self._lend()
        try:
            return Way(network, route, await self._network.attach(route))
        except BaseException:
            os.close(network)
            os.close(route)
            raise
