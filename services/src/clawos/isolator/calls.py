"""The calls under way: their output is carried, they are watched to their end, their places given back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any

from clawos.core.parse import Record
from clawos.isolator import relay
from clawos.isolator.call import Call, Ends, Result
from clawos.isolator.feed import Feed
from clawos.isolator.ports import Outcome
from clawos.isolator.queue import FairQueue

log = logging.getLogger(__name__)

# The launcher ends a call at its wall-clock limit; should it not, we do, this much later.
_WALL_GRACE_S = 10.0
# How long the result waits for a caller who has not read the output yet.
_DRAIN_S = 5.0
# How long stopping may take; below the unit's TimeoutStopSec=.
_CLOSE_S = 20.0


# Calls that are over and still told of: whoever watches from outside asks a little late.
_ENDED_KEPT = 256


class Told(Record, frozen=True):
    """Whose call it is."""

    id: str
    tool: str
    user: int
    session: str
    ended: bool


class Calls:
    def __init__(self, queue: FairQueue, drain_s: float) -> None:
        self._queue = queue
        self._drain_s = drain_s
        self._calls: dict[str, Call] = {}
        self._ended: deque[Told] = deque(maxlen=_ENDED_KEPT)
        self._tasks: set[asyncio.Task[Any]] = set()

    def carry(self, call: Call, ends: Ends, feed: Feed | None) -> asyncio.Task[Result | None]:
        """See a started call through to its result; None when that cannot be said. Its place is free then.

        Nothing waits here: a call that runs is a call that is known.
        """
        self._calls[call.order.id] = call
        if ends.to_next:
            out = relay.link(
                call.stdout,
                ends.stdout,
                call.budget,
                lambda: self._stop(call),
                lambda: _cut(call),
                lambda: _is_whole(call),
            )
        else:
            out = relay.output(call.stdout, ends.stdout, call.budget, lambda: self._stop(call))
        err = relay.output(call.stderr, ends.stderr, call.budget, lambda: self._stop(call))
        outputs = (self.task(out), self.task(err))
        if feed:
            feed.go()
        return self.task(self._carry(call, ends, outputs, feed))

    def find(self, call_id: str) -> Call | None:
        return self._calls.get(call_id)

    def told(self) -> list[Told]:
        """Of those that ended lately, and of those that run."""
        return [*self._ended, *(_told(call, ended=False) for call in self._calls.values())]

    def of(self, owner: str) -> Iterable[Call]:
        return [call for call in self._calls.values() if call.owner == owner]

    async def close(self) -> None:
        """End all calls and leave nothing behind."""
        for call in tuple(self._calls.values()):
            call.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        while self._tasks:  # what waits for a reader who does not read, and what that leaves to do
            for rest in tuple(self._tasks):
                rest.cancel()
            await asyncio.wait(self._tasks)

    def task[T](self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Something that `close` waits for."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _stop(self, call: Call) -> None:
        """The output's limit is reached, or nobody reads it."""
        if call.budget.exceeded:
            call.running.kill()
            call.when_broken()
        elif call.order.id in self._calls:
            call.cancel()

    async def _carry(
        self, call: Call, ends: Ends, outputs: tuple[asyncio.Task[None], ...], feed: Feed | None
    ) -> Result | None:
        try:
            ended = await self._end(call)
        finally:
            if not call.ended.done():
                call.ended.set_result(None)
            del self._calls[call.order.id]
            self._ended.append(_told(call, ended=True))
            drained = self.task(self._drain(call, ends, outputs, feed))
        await asyncio.wait([drained], timeout=_DRAIN_S)
        return _report(call, *ended) if ended else None

    async def _end(self, call: Call) -> tuple[Outcome, float] | None:
        """How the sandbox ended and how long it ran; None when that cannot be said."""
        ended: tuple[Outcome, float] | None = None
        waiting = asyncio.create_task(call.running.wait())
        try:
            done, _ = await asyncio.wait([waiting], timeout=call.order.plan.wall_s + _WALL_GRACE_S)
            if not done:
                call.running.kill()
            ended = await waiting, time.monotonic() - call.started
        except Exception:
            log.exception("call of %s was lost", call.order.plan.tool, extra=call.order.fields("lost"))
        call.ended.set_result(ended[0] if ended else None)
        if call.broken:
            call.when_broken()
        return ended

    async def _drain(
        self, call: Call, ends: Ends, outputs: tuple[asyncio.Task[None], ...], feed: Feed | None
    ) -> None:
        """Keep the call's place while it holds descriptors: who does not read uses up his own places."""
        try:
            stopping = [self.task(feed.stop())] if feed else []
            # The next call of a chain reads as it likes, and has a wall clock of its own.
            callers = outputs[1:] if ends.to_next else outputs
            _, unread = await asyncio.wait(callers, timeout=self._drain_s)
            if unread:
                tool, fields = call.order.plan.tool, call.order.fields("unread")
                log.warning("output of %s was not read in time", tool, extra=fields)
                for output in unread:
                    output.cancel()
            await asyncio.wait([*outputs, *stopping])
        finally:
            self._queue.leave(call.order.spec.user)


def _cut(call: Call) -> None:
    call.cut = True


async def _is_whole(call: Call) -> bool:
    await asyncio.wait([call.ended])
    return not call.broken


def _report(call: Call, outcome: Outcome, wall_s: float) -> Result:
    tool, result = call.order.plan.tool, call.result(outcome, wall_s)
    if result.limit:
        log.warning("call of %s met a limit: %s", tool, result.limit, extra=call.order.fields(result.limit))
    else:
        log.info("call of %s is over", tool, extra=call.order.fields(""))
    return result


def _told(call: Call, *, ended: bool) -> Told:
    spec = call.order.spec
    return Told(id=call.order.id, tool=spec.tool, user=spec.user, session=spec.session, ended=ended)
