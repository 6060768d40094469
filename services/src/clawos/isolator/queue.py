"""Who may run now: limits on calls that run and wait, by user and in all, and turns: none starves another.

A turn is a call's place, or all the places of a group: a chain whose calls took theirs one by one would wait
for itself where several chains hold some each.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass

from clawos.core.errors import Busy
from clawos.isolator.errors import GroupTooLarge

_HINT = "wait for a call to end, or cancel one"


@dataclass(frozen=True, eq=False)
class _Turn:
    places: int
    come: asyncio.Future[None]


class FairQueue:
    def __init__(
        self, running_max: int, queued_max: int, wait_s: float, *, user_running_max: int, user_queued_max: int
    ) -> None:
        self._running_max = running_max
        self._queued_max = queued_max
        self._wait_s = wait_s
        self._user_running_max = user_running_max
        self._user_queued_max = user_queued_max
        self._waiting: OrderedDict[int, deque[_Turn]] = OrderedDict()
        self._running: Counter[int] = Counter()

    @property
    def running(self) -> int:
        """Calls, not groups; so is `queued`."""
        return self._running.total()

    @property
    def queued(self) -> int:
        return sum(self._queued_of(user) for user in self._waiting)

    async def enter(self, user: int, places: int = 1) -> None:
        """Wait for that many places at once; `leave` gives each back.

        Raises Busy when too many wait or the wait is too long, GroupTooLarge when it would never end.
        """
        self._check_fits(places)
        turn = _Turn(places, asyncio.get_running_loop().create_future())
        before, before_of_user = self.queued, self._queued_of(user)
        self._waiting.setdefault(user, deque()).append(turn)
        self._hand_out()
        if turn.come.done():
            return
        try:
            if before_of_user + places > self._user_queued_max:
                raise self._busy(f"{before_of_user} calls of this user wait already", "user_queued_max")
            if before + places > self._queued_max:
                raise self._busy(f"{before} calls wait already", "queued_max")
            async with asyncio.timeout(self._wait_s):
                await turn.come
        except BaseException as error:
            if turn.come.done() and not turn.come.cancelled():  # it came in the same moment: pass it on
                self.leave(user, places)
            else:
                self._forget(user, turn)
            if isinstance(error, TimeoutError):
                raise self._no_turn(user, places) from None
            raise

    def leave(self, user: int, places: int = 1) -> None:
        """Hand places to the user who has waited longest since his last turn and may run more."""
        self._running[user] -= places
        if not self._running[user]:
            del self._running[user]
        self._hand_out()

    def _hand_out(self) -> None:
        while (user := self._next()) is not None:
            line = self._waiting.pop(user)
            while (turn := line.popleft()).come.done():
                pass  # gives up just now
            if line:
                self._waiting[user] = line  # to the end
            self._running[user] += turn.places
            turn.come.set_result(None)

    def _next(self) -> int | None:
        """Whose turn it is, if it is anybody's now.

        Who is at his own limit is passed over and keeps his rank. Who only lacks free places is not: they are
        kept for him until there are enough, or calls that need fewer would take them for ever.
        """
        for user, line in self._waiting.items():
            turn = next((turn for turn in line if not turn.come.done()), None)
            if turn and self._may_run(user, turn.places):
                return user if self.running + turn.places <= self._running_max else None
        return None

    def _check_fits(self, places: int) -> None:
        name, limit = min(
            ("user_running_max", self._user_running_max),
            ("running_max", self._running_max),
            key=lambda named: named[1],
        )
        if places > limit:
            raise GroupTooLarge(places, limit, name)

    def _may_run(self, user: int, places: int) -> bool:
        return self._running[user] + places <= self._user_running_max

    def _queued_of(self, user: int) -> int:
        return sum(turn.places for turn in self._waiting.get(user, ()))

    def _no_turn(self, user: int, places: int) -> Busy:
        words = f"no turn within {self._wait_s:g} s: "
        if self._may_run(user, places):
            return self._busy(f"{words}{self.running} calls run already", "running_max")
        return self._busy(f"{words}{self._running[user]} calls of this user run already", "user_running_max")

    def _busy(self, words: str, limit: str) -> Busy:
        return Busy(words, _HINT, limit=limit, running=self.running, queued=self.queued)

    def _forget(self, user: int, turn: _Turn) -> None:
        line = self._waiting.get(user)
        if line and turn in line:
            line.remove(turn)
            if not line:
                del self._waiting[user]
            self._hand_out()  # places were perhaps kept for this one
