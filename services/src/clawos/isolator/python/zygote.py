"""Keeps a zygote: when one is made, which calls begin as its copies, and when it goes.

No call waits for one. Where none is ready a call starts a new Python, behind the same fences.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from clawos.isolator.config import Config
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.launcher import LaunchedSandbox, Launcher
from clawos.isolator.plan import Plan
from clawos.isolator.ports import Streams
from clawos.isolator.python.plan import PYTHON

log = logging.getLogger(__name__)

# After one that did not start.
_PAUSE_S = 60.0


def command(config: Config) -> tuple[str | Path, ...]:
    return (*PYTHON, Path(__file__).with_name("__main__.py"), config.zygote)


class WithZygote:
    """A `Sandbox` by `launcher`; a call that may begin as a copy of a zygote does so when one is ready."""

    def __init__(self, launcher: Launcher, make: Callable[[], Launcher], config: Config) -> None:
        self.launcher = launcher
        self.uids = launcher.uids
        self._make = make
        self._config = config
        self._zygote: Launcher | None = None
        self._calls = 0
        self._since = 0.0
        self._next_try = 0.0
        self._making: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._idle: asyncio.TimerHandle | None = None

    async def start(self, call_id: str, plan: Plan, streams: Streams) -> LaunchedSandbox:
        zygote = self._for(plan)
        if zygote is None:
            return await self.launcher.start(call_id, plan, streams)
        try:
            return await zygote.start(call_id, plan, streams)
        except SandboxRefused as error:
            if zygote.is_running():  # so it refused the call, and so would the launcher
                raise
            log.warning("no copy of the zygote: %s", error.message)
        self._retire(zygote)
        return await self.launcher.start(call_id, plan, streams)

    async def close(self) -> None:
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait([self._making])
        if self._zygote is not None:
            self._retire(self._zygote)
        if self._ending:
            await asyncio.wait(self._ending)
        await self.launcher.close()

    def _for(self, plan: Plan) -> Launcher | None:
        """The zygote for this call; sees to it that a later call finds one too."""
        if not plan.zygote or self._config.zygote_calls == 0:
            return None
        if self._zygote is not None and not self._zygote.is_running():
            log.warning("the zygote ended by itself")
            self._retire(self._zygote)
        spent = self._spent()
        if spent >= 1:
            self._make_one(plan)
        # Two tools of one zygote share what it drew at its start: rather a slow call than one too many.
        if self._zygote is None or spent >= 2:
            return None
        self._calls += 1
        self._end_when_idle()
        return self._zygote

    def _spent(self) -> float:
        """How much of the zygote's time is over: at 1 another is made, at 2 it is used no more."""
        if self._zygote is None:
            return 2
        seconds = time.monotonic() - self._since
        return max(self._calls / self._config.zygote_calls, seconds / self._config.zygote_s)

    def _make_one(self, plan: Plan) -> None:
        if self._making is None and time.monotonic() >= self._next_try:
            self._making = asyncio.get_running_loop().create_task(self._replace(plan))

    async def _replace(self, plan: Plan) -> None:
        made = self._make()
        try:
            await made.prepare(plan)
        except (SandboxRefused, OSError) as error:
            self._next_try = time.monotonic() + _PAUSE_S
            log.warning("no zygote, Python starts anew in each call: %s", error)
            self._end(made.close())
        except asyncio.CancelledError:
            self._end(made.close())
            raise
        else:
            if self._zygote is not None:
                self._retire(self._zygote)
            self._zygote, self._calls, self._since = made, 0, time.monotonic()
            self._end_when_idle()
        finally:
            self._making = None

    def _end_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(
            self._config.zygote_idle_s, self._retire, self._zygote
        )

    def _retire(self, zygote: Launcher | None) -> None:
        """It takes no more calls, and ends with the last of those that it has."""
        if zygote is None or zygote is not self._zygote:
            return
        self._zygote = None
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._end(zygote.close())

    def _end(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
