"""A monitor of the tests' own: a source that they fill, and neighbours that remember what they were asked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from monitor.events import CALL, RULES

from clawos.core.errors import ClawError, Unavailable
from clawos.monitor.config import Config
from clawos.monitor.event import Event
from clawos.monitor.ports import CallInfo
from clawos.monitor.service import Monitor

SESSION = "5e55105e55105e55"


class FakeSource:
    """`ports.Source`: a queue, with a descriptor that is readable while there is something in it."""

    def __init__(self) -> None:
        self.waiting: list[Event] = []
        self.lost_by_kind: dict[str, int] = {}
        self.closed = False
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def put(self, *events: Event) -> None:
        for event in events:
            event.process = None  # the tree is to find it
        self.waiting += events
        os.write(self._write, b".")

    def fileno(self) -> int:
        return self._read

    def read(self, limit: int) -> Sequence[Event]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 65536)
        return taken

    def lost(self) -> Mapping[str, int]:
        return dict(self.lost_by_kind)

    def used(self) -> float:
        return len(self.waiting) / 100_000

    def close(self) -> None:
        self.closed = True
        os.close(self._read)
        os.close(self._write)


class FakeCounters:
    """`ports.Counters`"""

    def xdp(self) -> Mapping[tuple[str, str], int]:
        return {("egress", "passed_rule"): 5, ("egress", "dropped_port"): 2}

    def denials(self) -> Mapping[str, int]:
        return {"path:sandbox:/etc/shadow": 3}


@dataclass
class FakeIsolator:
    """`ports.Isolator`"""

    told: list[CallInfo] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    error: ClawError | None = None
    asked: int = 0

    def run(
        self, call: str = CALL, tool: str = "shell.run", user: int = 1000, session: str = SESSION
    ) -> None:
        self.told.append(CallInfo(id=call, tool=tool, user=user, session=session, ended=False))

    def is_over(self, call: str = CALL) -> None:
        (info,) = [one for one in self.told if one.id == call]
        self.told.remove(info)
        self.told.append(
            CallInfo(id=info.id, tool=info.tool, user=info.user, session=info.session, ended=True)
        )

    async def calls(self) -> Sequence[CallInfo]:
        self.asked += 1
        if self.error:
            raise self.error
        return list(self.told)

    async def end(self, call: str, reason: str) -> bool:
        if self.error:
            raise self.error
        self.ended.append((call, reason))
        return any(one.id == call and not one.ended for one in self.told)


@dataclass
class FakeAgent:
    """`ports.Agent`"""

    frozen: list[tuple[str, str]] = field(default_factory=list)

    async def freeze(self, session: str, reason: str) -> None:
        if session != SESSION:
            raise Unavailable("there is no such session")
        self.frozen.append((session, reason))


@dataclass
class World:
    monitor: Monitor
    source: FakeSource
    isolator: FakeIsolator
    agent: FakeAgent
    signals: list[str]
    state_dir: Path
    rules: Path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    own = tmp_path / "detect.d"
    own.mkdir()
    return Config(rules=(RULES, own), subscribers_max=3, idle_s=0.005)


@pytest.fixture
async def world(config: Config, tmp_path: Path) -> AsyncIterator[World]:
    source, isolator, agent = FakeSource(), FakeIsolator(), FakeAgent()
    signals: list[str] = []
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    monitor = Monitor(
        config, source, FakeCounters(), isolator, agent, lambda _: None, signals.append, state_dir
    )
    monitor.start()
    yield World(monitor, source, isolator, agent, signals, state_dir, config.rules[1])
    if not source.closed:
        await monitor.close()
