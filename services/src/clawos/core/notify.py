"""sd_notify(3): readiness and watchdog keep-alive, over the datagram socket that systemd hands us."""

from __future__ import annotations

import asyncio
import os
import socket


def notify(state: str) -> None:
    """Send e.g. "READY=1"; does nothing when not started by systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        s.connect(address)
        s.send(state.encode())


async def keep_watchdog_fed() -> None:
    """Ping at a third of WatchdogSec=, from the event loop itself: a stuck loop stops the pings."""
    interval_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    if not interval_us:
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_us / 3e6)
