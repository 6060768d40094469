"""Whose calls are these, and which of them are over? The isolator knows, and is asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from clawos.core.errors import ClawError
from clawos.monitor.engine import Engine
from clawos.monitor.ports import CallInfo, Isolator
from clawos.monitor.sandboxes import Sandbox, Sandboxes

log = logging.getLogger(__name__)

_ASK_S = 0.05
"""Between the first two questions; then the more seldom, the longer the answer does not come."""
_ASK_MAX_S = 1.0
_STARTING_S = 15.0
"""A call's first events come while the isolator still starts it: so long it may not know it yet."""
_ASK_AGAIN_S = 2.0
"""While calls run: have they ended?"""


class Calls:
    """Tells `sandboxes` and `engine` what the isolator says of each call."""

    def __init__(self, isolator: Isolator, sandboxes: Sandboxes, engine: Engine) -> None:
        self._isolator = isolator
        self._sandboxes = sandboxes
        self._engine = engine
        self._wanted = asyncio.Event()
        self._answers = True

    def want(self) -> None:
        """There are calls of which nothing is known."""
        self._wanted.set()

    async def ask(self) -> None:
        """For ever."""
        wait_s = _ASK_S
        while True:
            if self._sandboxes.untold:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _ASK_MAX_S)
            else:
                wait_s = _ASK_S
                try:
                    async with asyncio.timeout(_ASK_AGAIN_S):
                        await self._wanted.wait()
                except TimeoutError:
                    if not self._sandboxes.running():
                        continue
            self._wanted.clear()
            try:
                calls = await self._isolator.calls()
            except ClawError as error:
                if self._answers:
                    log.warning("the isolator does not say whose calls run: %s", error.message)
                self._answers = False
                await asyncio.sleep(_ASK_AGAIN_S)
                continue
            self._answers = True
            self._told({call.id: call for call in calls})

    def _told(self, calls: Mapping[str, CallInfo]) -> None:
        before_s = time.monotonic() - _STARTING_S
        for call in tuple(self._sandboxes.untold):
            if (info := calls.get(call)) is not None:
                sandbox = self._sandboxes.tell(call, info.tool, info.user, info.session)
                events = self._engine.recent.of_call(call)
                self._engine.told(sandbox, events[-1] if events else None)
            elif self._sandboxes.of(call).met_s < before_s:
                # None of the isolator's: somebody else made a cgroup of that name.
                self._sandboxes.untold.discard(call)
        for sandbox in self._sandboxes.running():
            info = calls.get(sandbox.id)
            if info.ended if info is not None else sandbox.met_s < before_s:
                self._over(sandbox, learn=info is not None)

    def _over(self, sandbox: Sandbox, *, learn: bool) -> None:
        sandbox.ended = True
        self._engine.baseline.over(sandbox.id, sandbox.tool, learn=learn and not sandbox.alerted)
