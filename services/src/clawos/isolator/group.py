"""Calls that start together: side by side, or as a chain, each reading what the one before it writes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from clawos.core.errors import ClawError, Internal
from clawos.core.parse import Record
from clawos.core.stream import StreamClosed, Writer
from clawos.isolator.call import Call, Ends, Order, Result, refusing, start, start_reading, stream
from clawos.isolator.calls import Calls
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.feed import Feed
from clawos.isolator.ports import Sandbox
from clawos.isolator.queue import FairQueue

CHAIN = "chain"
"""What ended a call that only another call of its chain made end."""


class CallEnded(Result, frozen=True, tag_field="type", tag="result"):
    """A line on a group's stream `result`."""

    call: int
    id: str
    cut: bool


class CallFailed(Record, frozen=True, tag_field="type", tag="error"):
    """One of the calls side by side could not be started, or was lost."""

    call: int
    id: str
    name: str
    message: str
    hint: str


class GroupEnded(Record, frozen=True, tag_field="type", tag="done"):
    """The last line."""

    failed: int | None
    wall_s: float


@dataclass(frozen=True)
class GroupHandle:
    """What the caller gets: the group's id and read ends, his to close. Of a chain, only the last stdout."""

    id: str
    stdout: list[int]
    stderr: list[int]
    result: int


@dataclass(frozen=True)
class Group:
    """A group under way."""

    id: str
    owner: str
    calls: Sequence[Call]

    def cancel(self) -> None:
        for call in self.calls:
            if not call.ended.done():
                call.cancel()

    def end_chain(self, broken: Call) -> None:
        """What comes before a killed one has no reader, what comes after would take a part for the whole."""
        for call in self.calls:
            if call is not broken and not call.broken and not call.ended.done():
                call.cancel(CHAIN)


@dataclass(frozen=True)
class _Started:
    call: Call
    ends: Ends
    feed: Feed | None


@dataclass(frozen=True)
class _Begun:
    stdout: list[int]
    stderr: list[int]
    calls: list[_Started | SandboxRefused]


class Groups:
    def __init__(self, sandbox: Sandbox, calls: Calls, queue: FairQueue) -> None:
        self._sandbox = sandbox
        self._calls = calls
        self._queue = queue
        self._groups: dict[str, Group] = {}

    def find(self, group_id: str) -> Group | None:
        return self._groups.get(group_id)

    async def start(self, how: str, orders: Sequence[Order], stdin: int) -> GroupHandle:
        """Start all calls. Takes stdin and the places of all over. Raises SandboxRefused.

        Of a chain every call starts, or none goes on; of calls side by side each may be refused by itself.
        """
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(self._queue.leave, orders[0].spec.user, len(orders))
            undo.callback(os.close, stdin)
            with refusing(orders[0]):
                result, events = await stream(undo)
            begun = await (self._chain if how == CHAIN else self._side_by_side)(orders, stdin, undo)
            undo.pop_all()
        os.close(stdin)
        started = [one.call for one in begun.calls if isinstance(one, _Started)]
        group = Group(orders[0].group, orders[0].owner, started)
        told = []
        for order, one in zip(orders, begun.calls, strict=True):
            if isinstance(one, SandboxRefused):
                self._queue.leave(order.spec.user)
                told.append(_tell_error(order, one, events))
                continue
            if how == CHAIN:
                one.call.when_broken = functools.partial(group.end_chain, one.call)
            told.append(_tell(one.call, self._calls.carry(one.call, one.ends, one.feed), events))
        self._groups[group.id] = group
        self._calls.task(self._follow(group, told, events))
        return GroupHandle(group.id, begun.stdout, begun.stderr, result)

    async def _chain(self, orders: Sequence[Order], stdin: int, undo: contextlib.AsyncExitStack) -> _Begun:
        """From the last to the first: who reads waits for input until what writes it is there."""
        with refusing(orders[-1]):
            stdout, sink = await stream(undo)
        begun = _Begun([stdout], [], [])
        for order in reversed(orders):
            feed, before = None, sink
            with refusing(order):
                stderr, errors = await stream(undo)
                if order is orders[0]:
                    call, feed = await start(self._sandbox, order, stdin, undo)
                else:
                    read_end, before = await Writer.open()
                    undo.push_async_callback(before.close)
                    call = await start_reading(self._sandbox, order, read_end, undo)
            begun.stderr.insert(0, stderr)
            ends = Ends(sink, errors, to_next=order is not orders[-1])
            begun.calls.insert(0, _Started(call, ends, feed))
            sink = before
        return begun

    async def _side_by_side(
        self, orders: Sequence[Order], stdin: int, undo: contextlib.AsyncExitStack
    ) -> _Begun:
        with refusing(orders[0]):
            streams = [(await stream(undo), await stream(undo)) for _ in orders]
        async with asyncio.TaskGroup() as starting:
            tasks = [
                starting.create_task(self._begin(order, Ends(out[1], err[1]), stdin, undo))
                for order, (out, err) in zip(orders, streams, strict=True)
            ]
        stdout, stderr = ([each[which][0] for each in streams] for which in (0, 1))
        return _Begun(stdout, stderr, [task.result() for task in tasks])

    async def _begin(
        self, order: Order, ends: Ends, stdin: int, undo: contextlib.AsyncExitStack
    ) -> _Started | SandboxRefused:
        try:
            async with contextlib.AsyncExitStack() as own:
                with refusing(order):
                    call, feed = await start(self._sandbox, order, stdin, own)
                undo.push_async_exit(own.pop_all())
            return _Started(call, ends, feed)
        except SandboxRefused as error:
            await ends.stdout.close()
            await ends.stderr.close()
            return error

    async def _follow(self, group: Group, told: Sequence[Coroutine[Any, Any, bool]], events: Writer) -> None:
        started = time.monotonic()
        try:
            failed = [index for index, itself in enumerate(await asyncio.gather(*told)) if itself]
            wall_s = round(time.monotonic() - started, 6)
            await _send(events, GroupEnded(failed=failed[0] if failed else None, wall_s=wall_s))
        finally:
            del self._groups[group.id]
            await events.close()


async def _tell(call: Call, carried: asyncio.Task[Result | None], events: Writer) -> bool:
    """Tell how a call ended. Returns whether it failed, and not because of another one."""
    result, order = await carried, call.order
    if not result:
        error = Internal("the call was lost", f"see 'journalctl CLAWOS_CALL={order.id}'")
        return await _tell_error(order, error, events)
    told = CallEnded(**msgspec.structs.asdict(result), call=order.index, id=order.id, cut=call.cut)
    await _send(events, told)
    return call.failed and call.ended_by != CHAIN


async def _tell_error(order: Order, error: ClawError, events: Writer) -> bool:
    told = CallFailed(call=order.index, id=order.id, name=error.name, message=error.message, hint=error.hint)
    await _send(events, told)
    return True


async def _send(events: Writer, line: Record) -> None:
    with contextlib.suppress(StreamClosed):
        await events.send_json(line)
