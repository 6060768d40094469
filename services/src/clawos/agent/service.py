"""The agent's behaviour: sessions and what is done in them."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from clawos.agent.errors import NoSuchSession
from clawos.agent.kit import Kit
from clawos.agent.ports import Peer, StoredSession
from clawos.agent.sandbox import RunSpec, User, run_spec
from clawos.agent.session import Session
from clawos.agent.states import State
from clawos.agent.template import expand
from clawos.agent.turn import AskRequest, Turn
from clawos.core.errors import AccessDenied, BadRequest, Busy
from clawos.core.parse import Record, to_json
from clawos.core.stream import Writer

log = logging.getLogger(__name__)

SHELL = "shell.run"
MAX_COMMAND_BYTES = 131_071  # the kernel's MAX_ARG_STRLEN, without the zero at the end
MAX_HISTORY_BYTES = 4 * 1024 * 1024  # well below what the bus lets through in one message
SESSIONS_IN_MEMORY = 256
MAX_REASON_CHARACTERS = 300


class SessionOptions(Record, frozen=True):
    """What `OpenSession` is given."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")] = "default"
    fresh: bool = False


class ExecRequest(Record, frozen=True):
    """What `Exec` is given."""

    command: str


class SpecRequest(Record, frozen=True):
    """What `Spec` is given."""

    tool: str
    args: dict[str, Any] = msgspec.field(default_factory=dict)


class ApproveRequest(Record, frozen=True):
    """What `Approve` is given."""

    call: str
    decision: Literal["yes", "no", "always"]
    args: dict[str, Any] | None = None
    """All arguments, as the user edited them; None leaves them as they are."""

    def __post_init__(self) -> None:
        if self.decision == "no" and self.args is not None:
            raise ValueError("args go with yes and always: a call that is refused has none to run with")


class AgentService:
    """Sessions by id; each belongs to one uid, and to anybody else it does not exist."""

    def __init__(self, kit: Kit, user_name: Callable[[int], str]) -> None:
        self._kit = kit
        self._user_name = user_name
        self._sessions: dict[str, Session] = {}
        self._named: dict[tuple[int, str], Session] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._follow: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to notice changed tool manifests, and use the time before the first call."""
        self._background(self._kit.registry.prepare())
        self._follow = asyncio.create_task(self._kit.registry.follow())
        self._follow.add_done_callback(_report_death)

    async def close(self) -> None:
        """End every turn, orderly, and close the store. Once closed, it stays so."""
        if self._closed:
            return
        self._closed = True
        if self._follow is not None:
            self._follow.cancel()
            await asyncio.gather(self._follow, return_exceptions=True)
        for session in self._sessions.values():
            if session.turn is not None:
                session.turn.stop(State.SHUTDOWN)
            else:
                session.machine.to(State.SHUTDOWN)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._kit.store.close()

    async def open_session(self, peer: Peer, options: SessionOptions) -> str:
        key = (peer.uid, options.name)
        if not options.fresh and key in self._named:
            return self._named[key].id
        config = self._kit.config
        stored = await self._kit.store.open_session(
            peer.uid, options.name, options.fresh, config.sessions_per_user, config.closed_sessions_per_user
        )
        self._named[key] = self._admit(stored)
        return stored.id

    async def ask(self, peer: Peer, session_id: str, request: AskRequest) -> tuple[str, int]:
        """Begin a turn. Returns its id and the read end of its events."""
        session = await self._session(peer, session_id)
        session.check_frozen()
        if not request.text.strip():
            raise BadRequest("request: text is empty", "say what you want")
        if len(request.text.encode()) > self._kit.config.max_text_bytes:
            raise BadRequest(
                f"request: text is over {self._kit.config.max_text_bytes} bytes", "make it shorter"
            )
        if session.turn is not None:
            raise Busy("this session is at work on another request", "wait for it, or cancel it")
        read_fd, writer = await Writer.open()
        if session.turn is not None:  # somebody was faster while the pipe was opened
            os.close(read_fd)
            await writer.close()
            raise Busy("this session is at work on another request", "wait for it, or cancel it")
        turn = session.turn = Turn(session, peer, request, writer, self._kit)
        forget = peer.on_vanish(turn.stop)
        self._background(turn.run()).add_done_callback(lambda _: forget())
        return turn.id, read_fd

    async def execute(
        self, peer: Peer, session_id: str, request: ExecRequest, stdin: int
    ) -> tuple[str, int, int, int]:
        """Run the user's own command. Its streams are the isolator's own: nothing passes through here."""
        session = await self._session(peer, session_id)
        session.check_frozen()
        command = request.command
        if not command.strip() or "\0" in command or len(command.encode()) > MAX_COMMAND_BYTES:
            raise BadRequest(
                f"request: command must be 1 to {MAX_COMMAND_BYTES} bytes, none of them zero",
                "write it to a file",
            )
        manifest = self._kit.registry.get(SHELL).manifest
        argv = expand(manifest.argv, {"command": command})
        spec = run_spec(manifest, argv, session.user, stdin=True, session=session.id)
        started = await self._kit.sandbox.start(spec, stdin)
        session.commands.append(started.id)
        log.info(
            "command %s started",
            started.id,
            extra={"CLAWOS_SESSION": session.id, "CLAWOS_UID": session.user.uid, "CLAWOS_TOOL": SHELL},
        )
        turn = secrets.token_hex(8)
        # Written down after the start: a disk that syncs slowly must not delay a command.
        self._background(self._kit.store.add_command(session.id, turn, command))
        return turn, started.stdout, started.stderr, started.result

    async def approve(self, peer: Peer, session_id: str, answer: ApproveRequest) -> None:
        session = await self._session(peer, session_id)
        session.check_frozen()
        if session.turn is None:
            raise BadRequest("nothing waits for an answer in this session", "it may have timed out")
        session.turn.answer(peer, answer.call, answer.decision, answer.args)

    async def cancel(self, peer: Peer, session_id: str) -> None:
        """End the turn and the commands of a session; where nothing is under way, nothing happens."""
        await self._end(await self._session(peer, session_id))

    async def freeze(self, session_id: str, reason: str) -> None:
        """Let a session, whosever it is, make no further call until it is thawed. Raises NoSuchSession."""
        shown = "".join(c if c.isprintable() else "?" for c in reason[:MAX_REASON_CHARACTERS])
        reason = shown or "no reason was given"
        # In memory first: what is under way must not begin another call while the disk is slow.
        session = self._sessions.get(session_id)
        if session is not None:
            session.frozen = reason
        if not await self._kit.store.set_frozen(session_id, reason):
            raise NoSuchSession("there is no such session", "see 'claw session list'")
        log.warning("session %s is frozen: %s", session_id, reason, extra={"CLAWOS_SESSION": session_id})
        session = self._sessions.get(session_id)  # it may have been read from the store meanwhile
        if session is not None:
            session.frozen = reason
            await self._end(session)

    async def thaw(self, session_id: str) -> None:
        """Let a session go on. Raises NoSuchSession."""
        if not await self._kit.store.set_frozen(session_id, ""):
            raise NoSuchSession("there is no such session", "see 'claw session list'")
        if (session := self._sessions.get(session_id)) is not None:
            session.frozen = ""
        log.info("session %s is thawed", session_id, extra={"CLAWOS_SESSION": session_id})

    async def frozen(self) -> list[dict[str, Any]]:
        """The sessions that are frozen, whosever they are."""
        return [
            {"session": stored.id, "user": stored.uid, "name": stored.name, "reason": stored.frozen}
            for stored in await self._kit.store.frozen_sessions()
        ]

    async def _end(self, session: Session) -> None:
        if session.turn is not None:
            session.turn.stop()
        commands = list(session.commands)
        session.commands.clear()
        await asyncio.gather(*(self._kit.sandbox.cancel(run) for run in commands))

    async def history(self, peer: Peer, session_id: str) -> list[dict[str, Any]]:
        session = await self._session(peer, session_id)
        entries = await self._kit.store.history(session.id, self._kit.config.history_messages)
        size_bytes = 0
        for at in reversed(range(len(entries))):
            size_bytes += len(to_json(entries[at]))
            if size_bytes > MAX_HISTORY_BYTES:
                return entries[at + 1 :]
        return entries

    def tools(self) -> list[dict[str, Any]]:
        return [
            {
                "name": tool.manifest.name,
                "description": tool.manifest.description,
                "class": tool.manifest.safety,
                "parameters": tool.parameters,
                "verbs": tool.manifest.verbs,
            }
            for tool in self._kit.registry.all()
        ]

    def spec(self, peer: Peer, request: SpecRequest) -> RunSpec:
        """What a call of a tool would ask of the isolator, for the caller; nothing runs."""
        tool = self._kit.registry.get(request.tool)
        arguments = tool.check(request.args)
        return run_spec(tool.manifest, expand(tool.manifest.argv, arguments), self._user(peer.uid))

    def status(self) -> dict[str, Any]:
        registry = self._kit.registry
        return {
            "sessions": len(self._sessions),
            "states": Counter(session.state for session in self._sessions.values()),
            "tools": len(registry),
            "tools_invalid": [{"file": str(i.file), "error": i.error} for i in registry.invalid],
        }

    async def _session(self, peer: Peer, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None and (stored := await self._kit.store.find_session(session_id)):
            session = self._sessions.get(session_id) or (
                self._admit(stored) if stored.uid == peer.uid else None
            )
        if session is None or session.user.uid != peer.uid:
            raise NoSuchSession("you have no such session", "open one first")
        return session

    def _admit(self, stored: StoredSession) -> Session:
        """Take a stored session into memory, putting out the one longest idle if there are too many."""
        if stored.id in self._sessions:
            return self._sessions[stored.id]
        user = self._user(stored.uid)
        if len(self._sessions) >= SESSIONS_IN_MEMORY:
            for old in [s for s in self._sessions.values() if s.turn is None][:1]:
                del self._sessions[old.id]
                self._named = {key: s for key, s in self._named.items() if s is not old}
        session = self._sessions[stored.id] = Session(stored, user)
        return session

    def _user(self, uid: int) -> User:
        try:
            return User(uid, self._user_name(uid))
        except KeyError:
            raise AccessDenied(f"uid {uid} has no user name", "log in as a user of this machine") from None

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_report_death)
        return task


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background work failed", exc_info=error)
