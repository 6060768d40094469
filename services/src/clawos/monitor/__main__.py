"""Run the monitor: python3 -I -m clawos.monitor"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clawos.core import config
from clawos.core.bus import Bus, Interface
from clawos.core.main import Service, serve
from clawos.core.names import POLICY_DIR
from clawos.monitor import enforce
from clawos.monitor.config import ROOM, Config
from clawos.monitor.fill import rule_names
from clawos.monitor.interface import MonitorInterface
from clawos.monitor.metrics_socket import MetricsSocket, handed_over
from clawos.monitor.peers import BusAgent, BusIsolator
from clawos.monitor.proc import ProcLook
from clawos.monitor.service import Monitor
from clawos.monitor.source import PinnedCounters, PinnedRing


async def build(bus: Bus) -> tuple[Service, Interface]:
    settings = config.load(ROOM, Config)
    state_dir = Path(os.environ.get("STATE_DIRECTORY", ROOM.state_dir))
    monitor = Monitor(
        settings,
        PinnedRing.open(settings.pins),
        PinnedCounters(settings.pins, rule_names(enforce.load(POLICY_DIR / "enforce.toml"))),
        BusIsolator(bus),
        BusAgent(bus),
        ProcLook(),
        lambda alert: bus.emit("Alert", alert),
        state_dir,
    )
    monitor.start()
    if listening := handed_over():
        await MetricsSocket(monitor.metrics).listen(listening)
    return monitor, MonitorInterface(monitor)


if __name__ == "__main__":
    sys.exit(serve(ROOM, build))
