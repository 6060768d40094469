"""Run the network room: python3 -I -m clawos.network"""

from __future__ import annotations

import sys

from clawos.core import config
from clawos.core.bus import Bus, Interface
from clawos.core.main import Service, serve
from clawos.network.config import ROOM, Config
from clawos.network.firewall import Nftables
from clawos.network.interface import NetworkInterface
from clawos.network.links import Links
from clawos.network.program import PinnedProgram
from clawos.network.service import Network


async def build(_: Bus) -> tuple[Service, Interface]:
    settings = config.load(ROOM, Config)
    network = Network(settings, Links(), Nftables(settings.nft), PinnedProgram(settings.program))
    await network.open()
    return network, NetworkInterface(network)


if __name__ == "__main__":
    sys.exit(serve(ROOM, build))
