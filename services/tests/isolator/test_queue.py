"""Turns: the limit holds, users take turns, nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from clawos.core.errors import Busy
from clawos.isolator.queue import FairQueue


async def line_up(queue: FairQueue, order: list[str], name: str, user: int) -> asyncio.Task[None]:
    async def wait() -> None:
        await queue.enter(user)
        order.append(name)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def test_users_take_turns() -> None:
    queue, order = FairQueue(1, 10, 5), list[str]()
    await queue.enter(0)
    tasks = [await line_up(queue, order, f"a{i}", 1) for i in range(3)]
    tasks += [await line_up(queue, order, f"b{i}", 2) for i in range(2)]
    for _ in tasks:
        queue.leave()
        await asyncio.sleep(0.01)
    assert order == ["a0", "b0", "a1", "b1", "a2"]
    queue.leave()
    assert (queue.running, queue.queued) == (0, 0)


async def test_the_limit_holds() -> None:
    queue = FairQueue(2, 1, 5)
    await queue.enter(1)
    await queue.enter(2)
    waiting = await line_up(queue, [], "x", 3)
    assert (queue.running, queue.queued) == (2, 1)
    with pytest.raises(Busy, match="1 calls wait already"):
        await queue.enter(3)
    queue.leave()
    await waiting
    assert queue.running == 2


async def test_a_wait_ends() -> None:
    queue = FairQueue(1, 5, 0.05)
    await queue.enter(1)
    with pytest.raises(Busy, match="no turn within"):
        await queue.enter(1)
    assert queue.queued == 0


async def test_who_gives_up_loses_nobody_a_turn() -> None:
    queue, order = FairQueue(1, 5, 5), list[str]()
    await queue.enter(0)
    first = await line_up(queue, order, "first", 1)
    second = await line_up(queue, order, "second", 2)
    first.cancel()
    await asyncio.sleep(0)
    queue.leave()
    await second
    assert order == ["second"]
    queue.leave()
    assert queue.running == 0


async def test_a_turn_given_to_who_is_leaving_goes_on() -> None:
    queue, order = FairQueue(1, 5, 5), list[str]()
    await queue.enter(0)
    first = await line_up(queue, order, "first", 1)
    second = await line_up(queue, order, "second", 1)
    queue.leave()  # first's turn …
    first.cancel()  # … in the moment that he gives up
    await second
    assert order == ["second"]
    queue.leave()
    assert queue.running == 0
