"""Attaches sandboxes to the egress service.

It remembers nothing of them: a namespace that ends takes its link along, and what the kernel lists is what
there is.
"""

from __future__ import annotations

import logging
from itertools import cycle

from clawos.core.parse import Record
from clawos.network.config import Config
from clawos.network.errors import FirewallChanged, SegmentFull
from clawos.network.ports import Firewall, Link, Program, Segment

log = logging.getLogger(__name__)


class Attached(Record, frozen=True):
    """What a sandbox needs to know."""

    address: str
    proxy: str
    port: int


class Status(Record, frozen=True):
    proxy: str
    port: int
    sandboxes: int
    sandboxes_max: int
    firewall: str
    """`loaded`, or `changed`."""
    program: bool
    """Is there an XDP program?"""


class Network:
    def __init__(self, config: Config, segment: Segment, firewall: Firewall, program: Program) -> None:
        self._config = config
        self._segment = segment
        self._firewall = firewall
        self._program = program
        self._slots = cycle(range(1, config.slots + 1))

    async def open(self) -> None:
        """Before the first sandbox. Raises CommandFailed, OSError: without rules there is no service."""
        self._segment.clear()  # of an earlier run: nobody knows how far it came, and under which program
        self._segment.open(self._config.proxy)
        await self._firewall.load(self._config.proxy, self._config.port)
        self._firewall.watch(self._shut)

    def attach(self, route: int, uid: int) -> Attached:
        """Attach the namespace of a route socket that the caller, `uid`, has opened in it.

        Raises NotASandbox, FirewallChanged, SegmentFull, ProgramRefused, LinkRefused; nothing is left then.
        """
        config = self._config
        self._firewall.check()
        taken = self._segment.names()
        if len(taken) >= config.sandboxes_max:
            raise SegmentFull(config.sandboxes_max)
        link = next(link for link in map(self._link, self._slots) if link.name not in taken)
        with self._program.opened() as program:
            self._segment.attach(link, config.proxy, route, uid, program)
        log.info("%s is attached", link.address, extra={"CLAWOS_LINK": link.name})
        return Attached(address=link.address, proxy=config.proxy, port=config.port)

    def status(self) -> Status:
        """Raises ProgramRefused."""
        with self._program.opened() as program:
            return Status(
                proxy=self._config.proxy,
                port=self._config.port,
                sandboxes=len(self._segment.names()),
                sandboxes_max=self._config.sandboxes_max,
                firewall="loaded" if self._is_guarded() else "changed",
                program=program is not None,
            )

    async def close(self) -> None:
        """Links stay while their sandboxes do, or the namespace: systemd ends it with the last unit in it."""
        self._segment.close()
        self._firewall.close()

    def _shut(self) -> None:
        """Who is in is not better guarded than who comes: nothing leads out of any sandbox any more."""
        log.error("the rules were changed: all links are removed", extra={"CLAWOS_LIMIT": "firewall"})
        self._segment.clear()

    def _link(self, slot: int) -> Link:
        return Link(slot, str(self._config.range[slot]))

    def _is_guarded(self) -> bool:
        try:
            self._firewall.check()
        except FirewallChanged:
            return False
        return True
