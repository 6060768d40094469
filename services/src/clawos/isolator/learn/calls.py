"""Which of all the calls are a tool's, and how often it made them.

What prepares a sandbox makes calls in its cgroup too. They end with its last filter, the profile, behind
which nobody loads another one: whatever a thread called before its last seccomp(2) that went through is not
the tool's. Threads are under their maker's filters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from clawos.isolator.learn.records import Arguments, Began, Ended, Forked, Record

_SET_MODE_FILTER = 1
_LOW_HALF = 0xFFFFFFFF
_UNTOLD: Arguments = (0,) * 6


class Made(NamedTuple):
    """One call, as far as it is told apart from others."""

    cgroup_id: int
    number: int
    arguments: Arguments
    """low halves of those that the profile judges, else 0; None where the kernel does not tell"""
    refused: int
    """0: it began. Else the error by which it ended, without having begun."""


@dataclass
class _Thread:
    is_confined: bool = False
    open: Began | None = None
    made: Counter[Made] = field(default_factory=Counter)


class Calls:
    def __init__(self, seccomp: int, judged: Mapping[int, frozenset[int]]) -> None:
        """`seccomp`: its number. `judged`: number → positions of the arguments to tell apart."""
        self._seccomp, self._judged = seccomp, judged
        self._threads: dict[int, _Thread] = {}
        self._of_ended: Counter[Made] = Counter()

    def add(self, record: Record) -> None:
        """The next one, in the order of time."""
        match record:
            case Began():
                self._began(record)
            case Ended():
                self._ended(record)
            case Forked():
                self._forked(record)

    def made(self, cgroup_id: int) -> dict[Made, int]:
        """How often each call was made in one sandbox."""
        total = self._of_ended.copy()
        for thread in self._threads.values():
            total.update(thread.made)
        return {one: times for one, times in total.items() if one.cgroup_id == cgroup_id}

    def _began(self, record: Began) -> None:
        thread = self._thread(record.tid)
        thread.open = record
        if thread.is_confined:
            thread.made[self._told(record, refused=0)] += 1

    def _ended(self, record: Ended) -> None:
        thread = self._thread(record.tid)
        began, thread.open = thread.open, None
        if began is None:
            # What never began and succeeds is a new thread's end of its maker's call. That of rt_sigreturn(2)
            # has no number.
            if thread.is_confined and record.returned < 0 <= record.number:
                thread.made[self._told(record, refused=-record.returned)] += 1
        elif (
            began.number == self._seccomp and began.arguments[0] == _SET_MODE_FILTER and record.returned == 0
        ):
            thread.is_confined = True
            thread.made.clear()

    def _forked(self, record: Forked) -> None:
        # A thread is kept until another one has its number: who calls execve(2) takes over its leader's.
        if before := self._threads.get(record.tid):
            self._of_ended.update(before.made)
        self._threads[record.tid] = _Thread(self._thread(record.parent_tid).is_confined)

    def _thread(self, tid: int) -> _Thread:
        return self._threads.setdefault(tid, _Thread())

    def _told(self, record: Began | Ended, refused: int) -> Made:
        asked = self._judged.get(record.number)
        arguments = (
            _UNTOLD
            if asked is None
            else tuple(
                0 if at not in asked else value if value is None else value & _LOW_HALF
                for at, value in enumerate(record.arguments)
            )
        )
        return Made(record.cgroup_id, record.number, arguments, refused)
