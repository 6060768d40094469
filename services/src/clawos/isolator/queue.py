"""Who may run now: a limit on calls under way, and turns by user, so that one cannot starve another."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from clawos.core.errors import Busy

_HINT = "wait for a call to end, or cancel one"


class FairQueue:
    def __init__(self, running_max: int, queued_max: int, wait_s: float) -> None:
        self._running_max = running_max
        self._queued_max = queued_max
        self._wait_s = wait_s
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()
        self.running = 0

    @property
    def queued(self) -> int:
        return sum(len(line) for line in self._waiting.values())

    async def enter(self, user: int) -> None:
        """Wait for a turn; `leave` gives it back. Raises Busy when too many wait or the wait is too long."""
        if self.running < self._running_max and not self._waiting:
            self.running += 1
            return
        if self.queued >= self._queued_max:
            raise Busy(f"{self.queued} calls wait already", _HINT, running=self.running, queued=self.queued)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # our turn came in the same moment: pass it on
                self.leave()
            else:
                self._forget(user, turn)
            if isinstance(error, TimeoutError):
                raise Busy(
                    f"no turn within {self._wait_s:g} s", _HINT, running=self.running, queued=self.queued
                ) from None
            raise

    def leave(self) -> None:
        """Hand the turn to the user who has waited longest since his last one."""
        while self._waiting:
            user, line = next(iter(self._waiting.items()))
            turn = line.popleft()
            del self._waiting[user]
            if line:
                self._waiting[user] = line  # to the end
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    def _forget(self, user: int, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(user)
        if line and turn in line:
            line.remove(turn)
            if not line:
                del self._waiting[user]
