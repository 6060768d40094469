"""The bus face of the network room: org.clawos.Network1."""

from __future__ import annotations

import os

from clawos.core.bus import Fd, Interface, Str, caller, method
from clawos.core.parse import to_json
from clawos.network.service import Network


class NetworkInterface(Interface):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network

    @method
    async def attach(self, route: Fd) -> Str:
        """Give a route socket's network namespace the way to the egress service; its address, as JSON."""
        try:
            return to_json(self._network.attach(route, caller().uid))
        finally:
            os.close(route)

    @method
    async def status(self) -> Str:
        """Where the egress service listens, and how many sandboxes are attached, as JSON."""
        return to_json(self._network.status())
