"""Run the isolator: python3 -I -m clawos.isolator"""

from __future__ import annotations

import sys

from clawos.core import config
from clawos.core.bus import Bus, Interface
from clawos.core.main import Service, serve
from clawos.isolator import backend, quotas
from clawos.isolator.cgroup import Cgroups, disk_of
from clawos.isolator.config import ROOM, Config
from clawos.isolator.filters import load as load_filters
from clawos.isolator.interface import IsolatorInterface
from clawos.isolator.launcher import LinuxMachine
from clawos.isolator.network import NetworkRoom
from clawos.isolator.planner import Planner
from clawos.isolator.queue import FairQueue
from clawos.isolator.service import Isolator


async def build(bus: Bus) -> tuple[Service, Interface]:
    settings = config.load(ROOM, Config)
    cgroups = await Cgroups.claim(disk_of(settings.home))
    network = NetworkRoom(bus)
    isolator = Isolator(
        Planner(settings, quotas.load(settings.quotas), load_filters(settings.filters)),
        await backend.choose(settings, cgroups, network),
        LinuxMachine(cgroups, settings.backend),
        FairQueue(
            settings.running_max,
            settings.queued_max,
            settings.queue_wait_s,
            user_running_max=settings.running_by_user,
            user_queued_max=settings.user_queued_max,
        ),
        settings.drain_s,
        network,
    )
    return isolator, IsolatorInterface(isolator, bus)


if __name__ == "__main__":
    sys.exit(serve(ROOM, build))
