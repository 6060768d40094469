"""The bus face of the agent. A structured value is one JSON string with the fields of `docs/specs/bus.md`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clawos.agent.service import AgentService, ApproveRequest, ExecRequest, SessionOptions, SpecRequest
from clawos.agent.turn import AskRequest
from clawos.core.bus import Bus, Fd, Interface, Str, caller, method
from clawos.core.parse import from_json, to_json


@dataclass(frozen=True)
class BusPeer:
    """`ports.Peer`: the caller of the member that is running."""

    uid: int
    unique_name: str
    bus: Bus

    def on_vanish(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self.bus.on_vanish(self.unique_name, callback)


@contextmanager
def _owned(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


class AgentInterface(Interface):
    """org.clawos.Agent1"""

    def __init__(self, service: AgentService, bus: Bus) -> None:
        super().__init__()
        self._service = service
        self._bus = bus

    def _peer(self) -> BusPeer:
        who = caller()
        return BusPeer(who.uid, who.unique_name, self._bus)

    @method
    async def open_session(self, options: Str) -> Str:
        """Continue the caller's session of a name, or begin one."""
        return await self._service.open_session(self._peer(), from_json(options, SessionOptions, "options"))

    @method
    async def ask(self, session: Str, request: Str) -> tuple[Str, Fd]:
        """Begin a turn; its events come through the descriptor, and closing it cancels the turn."""
        return await self._service.ask(self._peer(), session, from_json(request, AskRequest, "request"))

    @method
    async def exec(self, session: Str, request: Str, stdin: Fd) -> tuple[Str, Fd, Fd, Fd]:
        """Run the caller's own command in the sandbox, without a model."""
        with _owned(stdin):
            parsed = from_json(request, ExecRequest, "request")
            return await self._service.execute(self._peer(), session, parsed, stdin)

    @method
    async def approve(self, session: Str, answer: Str) -> None:
        """Answer the call that waits for an approval."""
        await self._service.approve(self._peer(), session, from_json(answer, ApproveRequest, "answer"))

    @method
    async def cancel(self, session: Str) -> None:
        """End what is under way in a session."""
        await self._service.cancel(self._peer(), session)

    @method
    async def history(self, session: Str) -> Str:
        """The conversation of a session."""
        return to_json(await self._service.history(self._peer(), session))

    @method
    async def tools(self) -> Str:
        """The tools there are."""
        return to_json(self._service.tools())

    @method
    async def spec(self, request: Str) -> Str:
        """What a call of a tool would ask of the isolator; nothing runs."""
        return to_json(self._service.spec(self._peer(), from_json(request, SpecRequest, "request")))

    @method
    async def freeze(self, session: Str, reason: Str) -> None:
        """Let a session make no further call, for the monitor."""
        await self._service.freeze(session, reason)

    @method
    async def thaw(self, session: Str) -> None:
        """Let a frozen session go on, for the administrator."""
        await self._service.thaw(session)

    @method
    async def frozen(self) -> Str:
        """The sessions that are frozen, and why, as JSON."""
        return to_json(await self._service.frozen())

    @method
    async def status(self) -> Str:
        """What the agent is doing, in numbers, and the manifests that it did not take."""
        return to_json(self._service.status())
