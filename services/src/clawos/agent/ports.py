"""The outside, as the agent needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from clawos.agent.conversation import Message
from clawos.agent.events import Status
from clawos.agent.sandbox import RunSpec
from clawos.core.parse import Record


class ToolOffer(Record, frozen=True):
    """A tool as a model is told about it."""

    name: str
    description: str
    parameters: dict[str, Any]
    verbs: tuple[str, ...]


class ChatRequest(Record, frozen=True):
    """What a model is asked."""

    messages: tuple[Message, ...]
    tools: tuple[ToolOffer, ...]


@dataclass(frozen=True)
class Generation:
    """An answer under way; `events` is the read end of its stream and ours to close."""

    id: str
    events: int


class Model(Protocol):
    """The inference service."""

    async def start(self, request: ChatRequest) -> Generation: ...
    async def cancel(self, generation: str) -> None: ...
    async def dialect(self) -> str:
        """The dialect of the model that answers by default."""
        ...


@dataclass(frozen=True)
class Started:
    """A call under way in a sandbox; the descriptors are read ends and ours to close or to pass on."""

    id: str
    stdout: int
    stderr: int
    result: int


class Sandbox(Protocol):
    """The isolator service."""

    async def start(self, spec: RunSpec, stdin: int) -> Started: ...
    async def cancel(self, run: str) -> None: ...


class Sink(Protocol):
    """Where the events of a turn go; `clawos.core.stream.Writer` is one."""

    @property
    def gone(self) -> asyncio.Event: ...
    async def send_json(self, value: Any) -> None: ...
    async def close(self) -> None: ...


class Peer(Protocol):
    """Who called."""

    @property
    def uid(self) -> int: ...
    @property
    def unique_name(self) -> str:
        """The connection; no other one ever has the same name."""
        ...

    def on_vanish(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when the caller leaves; returns a function that forgets the callback."""
        ...


@dataclass(frozen=True)
class StoredSession:
    """A session as it is kept."""

    id: str
    uid: int
    name: str
    frozen: str = ""
    """Why it may make no call; "" where it may."""


@dataclass(frozen=True)
class NewCall:
    """A call that the model asked for, before anything happens with it."""

    id: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class CallEnd:
    """How a call ended: done, failed, invalid, refused or interrupted; `content` is what a model is told."""

    id: str
    tool: str
    state: str
    content: str
    exit_code: int | None = None


class Store(Protocol):
    """Conversations that outlive the service. When a method returns, its change is on disk."""

    async def open_session(
        self, uid: int, name: str, fresh: bool, max_open: int, keep_closed: int
    ) -> StoredSession:
        """The open session of this user and name, or a new one. Raises Busy when the user has too many."""
        ...

    async def find_session(self, session: str) -> StoredSession | None: ...
    async def set_frozen(self, session: str, reason: str) -> bool:
        """Write down why a session is frozen, or with "" that it is not. Returns whether there is one."""
        ...

    async def frozen_sessions(self) -> list[StoredSession]: ...
    async def messages(self, session: str, last: int) -> list[Message]:
        """The end of the conversation, without the commands that the user ran without a model."""
        ...

    async def history(self, session: str, last: int) -> list[dict[str, Any]]: ...
    async def begin_turn(self, session: str, turn: str, text: str) -> None: ...
    async def add_answer(self, session: str, turn: str, text: str, calls: Sequence[NewCall]) -> None: ...
    async def begin_call(self, call: str, edited: Mapping[str, Any] | None = None) -> None:
        """A call runs; `edited` are the arguments that the user put in place of the model's."""
        ...

    async def end_calls(self, session: str, turn: str, ends: Sequence[CallEnd]) -> None: ...
    async def end_turn(self, turn: str, status: Status) -> None: ...
    async def add_command(self, session: str, turn: str, command: str) -> None: ...
    async def close(self) -> None: ...
