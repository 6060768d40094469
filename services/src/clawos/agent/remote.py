"""The inference service and the isolator, over the bus."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import Any

import msgspec

from clawos.agent.ports import ChatRequest, Generation, Started
from clawos.agent.sandbox import RunSpec
from clawos.core.bus import Bus
from clawos.core.errors import ClawError
from clawos.core.parse import to_json

log = logging.getLogger(__name__)

INFERENCE = "org.clawos.Inference1"
ISOLATOR = "org.clawos.Isolator1"


class _ModelStatus(msgspec.Struct):
    dialect: str | None = None


class BusModel:
    """`ports.Model`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def start(self, request: ChatRequest) -> Generation:
        generation, events = await _start(self._bus, INFERENCE, "Chat", to_json(request))
        return Generation(generation, events)

    async def cancel(self, generation: str) -> None:
        await _cancel(self._bus, INFERENCE, generation)

    async def dialect(self) -> str:
        (status,) = await self._bus.call(INFERENCE, "Status")
        return msgspec.json.decode(status, type=_ModelStatus).dialect or ""


class BusSandbox:
    """`ports.Sandbox`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def start(self, spec: RunSpec, stdin: int) -> Started:
        run, stdout, stderr, result = await _start(self._bus, ISOLATOR, "Run", to_json(spec), fds=(stdin,))
        return Started(run, stdout, stderr, result)

    async def cancel(self, run: str) -> None:
        await _cancel(self._bus, ISOLATOR, run)


async def _start(bus: Bus, name: str, member: str, argument: str, *, fds: tuple[int, ...] = ()) -> list[Any]:
    """Call a member that starts work.

    If we are cancelled meanwhile, the late reply's streams are closed, which ends that work; a plain await
    would lose them, and the work would go on unseen.
    """
    # The reply may outlast the caller's copy of the descriptors.
    kept = tuple(os.dup(fd) for fd in fds)
    call = asyncio.ensure_future(bus.call(name, member, argument, fds=kept))
    call.add_done_callback(lambda _: _close(kept))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        call.add_done_callback(_drop)
        raise


def _drop(call: asyncio.Future[list[Any]]) -> None:
    if call.cancelled() or call.exception() is not None:
        return
    _close(value for value in call.result() if isinstance(value, int))


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


async def _cancel(bus: Bus, name: str, work: str) -> None:
    try:
        await bus.call(name, "Cancel", work)
    except ClawError as error:
        # Most often it has just ended by itself; its streams are closed in any case, which cancels it too.
        log.debug("%s did not cancel %s: %s", name, work, error.message)
