"""Who may run now: limits on calls that run and wait, by user and in all, and turns: none starves another."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque

from clawos.core.errors import Busy

_HINT = "wait for a call to end, or cancel one"


class FairQueue:
    def __init__(
        self, running_max: int, queued_max: int, wait_s: float, *, user_running_max: int, user_queued_max: int
    ) -> None:
        self._running_max = running_max
        self._queued_max = queued_max
        self._wait_s = wait_s
        self._user_running_max = user_running_max
        self._user_queued_max = user_queued_max
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()
        self._running: Counter[int] = Counter()

    @property
    def running(self) -> int:
        return self._running.total()

    @property
    def queued(self) -> int:
        return sum(len(line) for line in self._waiting.values())

    async def enter(self, user: int) -> None:
        """Wait for a turn; `leave` gives it back. Raises Busy when too many wait or the wait is too long."""
        # Where a place is free, all who wait are at their own limit: nobody is overtaken.
        if self.running < self._running_max and self._may_run(user):
            self._running[user] += 1
            return
        own = len(self._waiting.get(user, ()))
        if own >= self._user_queued_max:
            raise self._busy(f"{own} calls of this user wait already", "user_queued_max")
        if self.queued >= self._queued_max:
            raise self._busy(f"{self.queued} calls wait already", "queued_max")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # our turn came in the same moment: pass it on
                self.leave(user)
            else:
                self._forget(user, turn)
            if isinstance(error, TimeoutError):
                raise self._no_turn(user) from None
            raise

    def leave(self, user: int) -> None:
        """Hand the turn to the user who has waited longest since his last one and may run more."""
        self._running[user] -= 1
        if not self._running[user]:
            del self._running[user]
        while self.running < self._running_max:
            following = next((waiting for waiting in self._waiting if self._may_run(waiting)), None)
            if following is None:
                return
            line = self._waiting.pop(following)
            turn = line.popleft()
            if line:
                self._waiting[following] = line  # to the end
            if not turn.done():
                self._running[following] += 1
                turn.set_result(None)

    def _may_run(self, user: int) -> bool:
        return self._running[user] < self._user_running_max

    def _no_turn(self, user: int) -> Busy:
        words = f"no turn within {self._wait_s:g} s: "
        if self._may_run(user):
            return self._busy(f"{words}{self.running} calls run already", "running_max")
        return self._busy(f"{words}{self._running[user]} calls of this user run already", "user_running_max")

    def _busy(self, words: str, limit: str) -> Busy:
        return Busy(words, _HINT, limit=limit, running=self.running, queued=self.queued)

    def _forget(self, user: int, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(user)
        if line and turn in line:
            line.remove(turn)
            if not line:
                del self._waiting[user]
