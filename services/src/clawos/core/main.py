"""How every room runs: log, connect, publish, tell systemd, feed the watchdog, stop when told."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol

from clawos.core import log as logging_setup
from clawos.core.bus import Bus, Interface
from clawos.core.errors import ClawError
from clawos.core.names import Room
from clawos.core.notify import keep_watchdog_fed, notify

log = logging.getLogger(__name__)


class Service(Protocol):
    """A room's behaviour, as far as its life cycle goes."""

    async def close(self) -> None: ...


Build = Callable[[Bus], Awaitable[tuple[Service, Interface]]]


async def _serve(room: Room, build: Build) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bus = await Bus.connect()
    service, interface = await build(bus)
    await bus.serve(room.bus_name, room.object_path, interface)
    watchdog = loop.create_task(keep_watchdog_fed())
    notify("READY=1")
    log.info("%s is ready", room.bus_name)
    waits = [loop.create_task(stop.wait()), loop.create_task(bus.wait_closed())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    watchdog.cancel()
    for task in waits:
        task.cancel()
    await service.close()
    await bus.close()


def serve(room: Room, build: Build) -> int:
    """Run a room until SIGTERM or the end of the bus. Returns the exit code for `__main__`."""
    logging_setup.setup(room.name)
    try:
        asyncio.run(_serve(room, build))
    except ClawError as error:
        print(f"{room.user}: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"{room.user}: {error.hint}", file=sys.stderr)
        return 1
    return 0
