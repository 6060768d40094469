"""Turns, whatever users do in whatever order: limits hold, lines are in order, nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clawos.core.errors import Busy
from clawos.isolator.errors import GroupTooLarge
from clawos.isolator.queue import FairQueue

USERS = 4


@dataclass(eq=False)
class Turn:
    user: int
    places: int
    task: asyncio.Task[None] | None = None
    eligible: bool = False
    """First of its line, and its user may run so many more."""
    overtaken_by: Counter[int] = field(default_factory=Counter)


class Turns(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.running: Counter[int] = Counter()
        self.waiting: list[Turn] = []
        self.admitted: list[Turn] = []

    @initialize(
        running_max=st.integers(1, 8),
        queued_max=st.integers(1, 20),
        user_running_max=st.integers(1, 8),
        user_queued_max=st.integers(1, 10),
    )
    def begin(self, running_max: int, queued_max: int, user_running_max: int, user_queued_max: int) -> None:
        self.running_max, self.queued_max = running_max, queued_max
        self.user_running_max, self.user_queued_max = user_running_max, user_queued_max
        self.queue = FairQueue(
            running_max,
            queued_max,
            1000,
            user_running_max=user_running_max,
            user_queued_max=user_queued_max,
        )

    @rule(user=st.integers(0, USERS - 1), places=st.integers(1, 5))
    def enter(self, user: int, places: int) -> None:
        turn = Turn(user, places)
        queued, own = self.queue.queued, sum(t.places for t in self.waiting if t.user == user)

        async def wait() -> None:
            await self.queue.enter(user, places)
            self.admitted.append(turn)

        turn.task = self.loop.create_task(wait())
        self.waiting.append(turn)
        self.settle()
        if turn.task.done() and (error := turn.task.exception()):
            self.waiting.remove(turn)
            too_large = places > min(self.running_max, self.user_running_max)
            assert isinstance(error, GroupTooLarge) == too_large
            if not too_large:
                assert isinstance(error, Busy)
                assert queued + places > self.queued_max or own + places > self.user_queued_max

    @rule(user=st.integers(0, USERS - 1))
    def leave(self, user: int) -> None:
        if self.running[user]:
            self.running[user] -= 1
            self.queue.leave(user)
            self.settle()

    @rule(which=st.integers(0, 100), leaving=st.sampled_from(["nobody", "before", "after"]))
    def give_up(self, which: int, leaving: str) -> None:
        """Perhaps in the very moment that a place becomes free, and is his."""
        if not self.waiting:
            return
        turn = self.waiting.pop(which % len(self.waiting))
        assert turn.task is not None
        user = next((user for user, calls in self.running.items() if calls), None)
        if leaving == "before" and user is not None:
            self.queue.leave(user)
        turn.task.cancel()
        if leaving == "after" and user is not None:
            self.queue.leave(user)
        if leaving != "nobody" and user is not None:
            self.running[user] -= 1
        self.settle()
        assert turn.task.cancelled()

    def settle(self) -> None:
        """Let everybody do what there is to do, and see who was let in, in what order."""
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))
        for turn in self.admitted:
            line = [waiting for waiting in self.waiting if waiting.user == turn.user]
            assert line[0] is turn, "nobody overtakes himself"
            self.waiting.remove(turn)
            self.running[turn.user] += turn.places
            for waiting in self.waiting:
                if waiting.eligible:
                    waiting.overtaken_by[turn.user] += 1
        self.admitted.clear()
        for turn in self.waiting:
            turn.eligible = turn.eligible or (
                turn is self.first(turn.user)
                and self.running[turn.user] + turn.places <= self.user_running_max
            )

    def first(self, user: int) -> Turn | None:
        return next((turn for turn in self.waiting if turn.user == user), None)

    @invariant()
    def the_limits_hold(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert self.queue.running == self.running.total() <= self.running_max
        assert all(calls <= self.user_running_max for calls in self.running.values())
        assert self.queue.queued == sum(turn.places for turn in self.waiting) <= self.queued_max
        for user in range(USERS):
            assert sum(turn.places for turn in self.waiting if turn.user == user) <= self.user_queued_max

    @invariant()
    def nobody_is_passed_over_twice(self) -> None:
        for turn in self.waiting:
            assert all(times <= 1 for times in turn.overtaken_by.values()), turn

    @invariant()
    def no_place_is_free_for_nothing(self) -> None:
        eligible = [turn for turn in self.waiting if turn.eligible]
        if eligible:
            free = self.running_max - self.running.total()
            assert any(turn.places > free for turn in eligible)

    def teardown(self) -> None:
        """Everybody who waits gets his turn when calls end, and then nothing is left."""
        while self.waiting:
            before = len(self.waiting)
            for user, calls in list(self.running.items()):
                for _ in range(calls):
                    self.leave(user)
            assert len(self.waiting) < before, "somebody waits for ever"
            self.nobody_is_passed_over_twice()
        for user, calls in list(self.running.items()):
            for _ in range(calls):
                self.leave(user)
        if hasattr(self, "queue"):
            assert (self.queue.running, self.queue.queued) == (0, 0)
        self.loop.close()


TestTurns = Turns.TestCase
TestTurns.settings = settings(
    max_examples=400, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestTurns = pytest.mark.filterwarnings("error")(TestTurns)
