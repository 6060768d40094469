"""Turns: the limit holds, users take turns, nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from clawos.core.errors import Busy
from clawos.isolator.config import Config
from clawos.isolator.errors import GroupTooLarge
from clawos.isolator.queue import FairQueue


def queue_for(
    running_max: int,
    queued_max: int,
    wait_s: float,
    *,
    user_running_max: int = 100,
    user_queued_max: int = 100,
) -> FairQueue:
    return FairQueue(
        running_max, queued_max, wait_s, user_running_max=user_running_max, user_queued_max=user_queued_max
    )


async def line_up(
    queue: FairQueue, order: list[str], name: str, user: int, places: int = 1
) -> asyncio.Task[None]:
    async def wait() -> None:
        await queue.enter(user, places)
        order.append(name)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def test_users_take_turns() -> None:
    queue, order = queue_for(1, 10, 5), list[str]()
    await queue.enter(0)
    tasks = [await line_up(queue, order, f"a{i}", 1) for i in range(3)]
    tasks += [await line_up(queue, order, f"b{i}", 2) for i in range(2)]
    for user in (0, 1, 2, 1, 2):
        queue.leave(user)
        await asyncio.sleep(0.01)
    assert order == ["a0", "b0", "a1", "b1", "a2"]
    assert all(task.done() for task in tasks)
    queue.leave(1)
    assert (queue.running, queue.queued) == (0, 0)


async def test_the_limit_holds() -> None:
    queue = queue_for(2, 1, 5)
    await queue.enter(1)
    await queue.enter(2)
    waiting = await line_up(queue, [], "x", 3)
    assert (queue.running, queue.queued) == (2, 1)
    with pytest.raises(Busy, match="1 calls wait already"):
        await queue.enter(3)
    queue.leave(1)
    await waiting
    assert queue.running == 2


async def test_a_wait_ends() -> None:
    queue = queue_for(1, 5, 0.05)
    await queue.enter(1)
    with pytest.raises(Busy, match="no turn within") as busy:
        await queue.enter(1)
    assert busy.value.fields["limit"] == "running_max"
    assert queue.queued == 0


async def test_who_gives_up_loses_nobody_a_turn() -> None:
    queue, order = queue_for(1, 5, 5), list[str]()
    await queue.enter(0)
    first = await line_up(queue, order, "first", 1)
    second = await line_up(queue, order, "second", 2)
    first.cancel()
    await asyncio.sleep(0)
    queue.leave(0)
    await second
    assert order == ["second"]
    queue.leave(2)
    assert queue.running == 0


async def test_a_turn_given_to_who_is_leaving_goes_on() -> None:
    queue, order = queue_for(1, 5, 5), list[str]()
    await queue.enter(0)
    first = await line_up(queue, order, "first", 1)
    second = await line_up(queue, order, "second", 1)
    queue.leave(0)  # first's turn …
    first.cancel()  # … in the moment that he gives up
    await second
    assert order == ["second"]
    queue.leave(1)
    assert queue.running == 0


async def test_who_gives_up_in_the_moment_that_a_place_is_free_gets_none() -> None:
    queue, order = queue_for(1, 5, 5), list[str]()
    await queue.enter(0)
    first = await line_up(queue, order, "first", 1)
    second = await line_up(queue, order, "second", 1)
    first.cancel()
    queue.leave(0)
    await second
    assert (order, queue.running, queue.queued) == (["second"], 1, 0)


async def test_one_user_cannot_take_every_place() -> None:
    queue = queue_for(8, 32, 5, user_running_max=6)
    for _ in range(6):
        await queue.enter(1)
    waiting = await line_up(queue, [], "a", 1)
    assert (queue.running, queue.queued) == (6, 1), "two places stay free"
    await queue.enter(2)
    await queue.enter(2)
    queue.leave(2)
    await asyncio.sleep(0)
    assert not waiting.done(), "another's place is not his"
    queue.leave(1)
    await waiting
    assert (queue.running, queue.queued) == (7, 0)


async def test_one_user_cannot_take_every_place_in_the_line() -> None:
    queue = queue_for(1, 32, 5, user_queued_max=2)
    await queue.enter(1)
    waiting = [await line_up(queue, [], "a", 1) for _ in range(2)]
    with pytest.raises(Busy, match="2 calls of this user wait already") as busy:
        await queue.enter(1)
    assert busy.value.fields["limit"] == "user_queued_max"
    waiting.append(await line_up(queue, [], "b", 2))
    assert queue.queued == 3
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert queue.queued == 0


async def test_busy_names_the_users_own_limit() -> None:
    queue = queue_for(8, 32, 0.05, user_running_max=1)
    await queue.enter(1)
    with pytest.raises(Busy, match="1 calls of this user run already") as busy:
        await queue.enter(1)
    assert busy.value.fields["limit"] == "user_running_max"


async def test_a_group_gets_all_its_places_at_once() -> None:
    queue, order = queue_for(4, 10, 5), list[str]()
    await queue.enter(0, 2)
    group = await line_up(queue, order, "group", 1, places=3)
    assert (queue.running, queue.queued) == (2, 3), "two are free, and none is taken"
    queue.leave(0)
    await group
    assert (queue.running, queue.queued) == (4, 0)
    for _ in range(3):
        queue.leave(1)
    assert queue.running == 1


async def test_places_are_kept_for_a_wide_group() -> None:
    """Or calls that need one place each would take them for ever."""
    queue, order = queue_for(4, 20, 5), list[str]()
    for _ in range(4):
        await queue.enter(0)
    group = await line_up(queue, order, "group", 1, places=4)
    others = [await line_up(queue, order, f"other{i}", 2) for i in range(3)]
    for _ in range(3):
        queue.leave(0)
        await asyncio.sleep(0)
        assert order == [], "one place is free, and it is kept"
    queue.leave(0)
    await group
    assert order == ["group"]
    for _ in range(4):
        queue.leave(1)
    await asyncio.gather(*others)
    assert order == ["group", "other0", "other1", "other2"]


async def test_nothing_is_kept_for_a_group_at_its_users_own_limit() -> None:
    queue, order = queue_for(8, 20, 5, user_running_max=4), list[str]()
    await queue.enter(1, 3)
    await line_up(queue, order, "group", 1, places=4)
    await queue.enter(2)
    await line_up(queue, order, "own", 1)
    assert order == [], "nobody overtakes himself"
    for _ in range(3):
        queue.leave(1)
    await asyncio.sleep(0)
    assert order == ["group"]


async def test_a_group_that_gives_up_lets_the_others_through() -> None:
    queue, order = queue_for(2, 20, 5), list[str]()
    await queue.enter(0)
    group = await line_up(queue, order, "group", 1, places=2)
    other = await line_up(queue, order, "other", 2)
    assert order == []
    group.cancel()
    await other
    assert (queue.running, queue.queued) == (2, 0)


async def test_a_group_that_never_fits_is_told_at_once() -> None:
    queue = queue_for(8, 32, 5, user_running_max=6)
    await queue.enter(1, 6)
    with pytest.raises(GroupTooLarge, match="7 calls never run at a time: user_running_max is 6") as error:
        await queue.enter(1, 7)
    assert error.value.fields == {"calls": 7, "most": 6, "limit": "user_running_max"}
    with pytest.raises(GroupTooLarge, match="running_max is 2"):
        await queue_for(2, 32, 5).enter(1, 3)


async def test_who_waits_is_counted_by_calls() -> None:
    queue = queue_for(3, 32, 5, user_queued_max=4)
    await queue.enter(1, 3)
    group = await line_up(queue, [], "group", 1, places=2)
    with pytest.raises(Busy, match="2 calls of this user wait already"):
        await queue.enter(1, 3)
    assert queue.queued == 2
    group.cancel()


async def take(queue: FairQueue, *, at_once: bool) -> None:
    """A chain of three calls, each of which ends only when all have run."""
    for places in (3,) if at_once else (1, 1, 1):
        await queue.enter(1, places)
        await asyncio.sleep(0)
    for _ in range(3):
        queue.leave(1)


async def test_chains_do_not_wait_for_each_other_for_ever() -> None:
    queue = queue_for(4, 100, 1)
    await asyncio.gather(*(take(queue, at_once=True) for _ in range(30)))
    assert (queue.running, queue.queued) == (0, 0)


async def test_chains_that_take_place_by_place_would() -> None:
    """The control of the test above."""
    queue = queue_for(4, 100, 0.2)
    ended = await asyncio.gather(*(take(queue, at_once=False) for _ in range(30)), return_exceptions=True)
    assert all(isinstance(error, Busy) for error in ended)


@pytest.mark.parametrize(("running_max", "by_user"), [(8, 6), (3, 1), (2, 1), (1, 1)])
def test_by_default_two_places_are_left_to_others(running_max: int, by_user: int) -> None:
    assert Config(running_max=running_max).running_by_user == by_user
    assert Config(running_max=running_max, user_running_max=2).running_by_user == 2
