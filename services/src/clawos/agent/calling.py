"""One call of a turn: known and valid, permitted, run, told."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from clawos.agent.events import (
    ApprovalRequired,
    CallAnnounced,
    CallEdited,
    Failure,
    Status,
    ToolOutput,
    ToolResult,
)
from clawos.agent.kit import Kit
from clawos.agent.permission import Decision, decide
from clawos.agent.ports import CallEnd, NewCall, Peer
from clawos.agent.registry import Tool
from clawos.agent.render import summary
from clawos.agent.sandbox import run_spec
from clawos.agent.session import Session
from clawos.agent.states import State
from clawos.agent.template import expand
from clawos.agent.toolrun import Outcome, run_tool
from clawos.core.errors import BadRequest, ClawError

if TYPE_CHECKING:
    from clawos.agent.turn import Turn

log = logging.getLogger(__name__)

Word = Literal["yes", "no", "always"]


@dataclass(frozen=True)
class _Prepared:
    tool: Tool
    call: NewCall
    argv: tuple[str, ...]
    summary: str
    edited: bool = False
    """The arguments are the user's and not the model's."""


@dataclass(frozen=True)
class _Waiting:
    """A call that a person is asked about; the answer is the call to run, or None for a no."""

    prepared: _Prepared
    answer: asyncio.Future[_Prepared | None]


class Caller:
    """Carries out the calls of one turn, one after the other."""

    def __init__(self, turn: Turn, session: Session, peer: Peer, kit: Kit, *, interactive: bool) -> None:
        self._turn = turn
        self._peer = peer
        self._session = session
        self._kit = kit
        self._interactive = interactive
        self._waiting: _Waiting | None = None

    def answer(self, peer: Peer, call: str, word: Word, edited: dict[str, Any] | None = None) -> None:
        """Raises BadRequest when this call does not wait for an answer, and ArgumentsInvalid, after which it
        still does."""
        waiting = self._waiting
        if waiting is None or waiting.prepared.call.id != call or waiting.answer.done():
            raise BadRequest(
                f"no call {call[:32]!r} waits for an answer", "it may have been answered already"
            )
        prepared = waiting.prepared
        if edited is not None and edited != prepared.call.arguments:
            # By the manifest that the question was asked with, though a newer one may have been read since.
            prepared = _prepare(prepared.tool, replace(prepared.call, arguments=edited), edited=True)
        manifest = prepared.tool.manifest
        if word == "always":
            self._session.approve_always(peer, manifest.name, manifest.safety, prepared.call.arguments)
        fields = {"CLAWOS_CALL": call, "CLAWOS_TOOL": manifest.name, "CLAWOS_DECISION": word}
        if prepared.edited:
            # Names only: the values, old and new, are kept with the conversation and not in the journal.
            changed = " ".join(_changed(waiting.prepared, prepared))
            log.info(
                "call %s: the user edited %s and said %s",
                call,
                changed,
                word,
                extra={**fields, "CLAWOS_EDITED": changed},
            )
        else:
            log.info("call %s: the user said %s", call, word, extra=fields)
        waiting.answer.set_result(None if word == "no" else prepared)

    async def announce(self, call: NewCall) -> str:
        """Tell of a call that will not run. Raises ToolUnknown and ArgumentsInvalid. Returns its summary."""
        prepared = self._prepare(call)
        await self._tell(prepared)
        return prepared.summary

    async def call(self, call: NewCall) -> Status:
        """DONE, FAILED, or a status that ends the turn because the call may not run."""
        try:
            prepared = self._prepare(call)
        except ClawError as error:
            # Told to the model as well: a bigger one corrects itself.
            told = f"[invalid call: {error.message}]"
            await self._turn.close_calls([CallEnd(call.id, call.tool, "invalid", told)])
            await self._turn.emit(
                Failure(turn=self._turn.id, name=error.bus_name, message=error.message, hint=error.hint)
            )
            return Status.FAILED
        await self._tell(prepared)
        match self._decide(prepared):
            case Decision.REFUSE:
                await self._tell_question(prepared)
                return Status.APPROVAL_NEEDED
            case Decision.ASK:
                approved = await self._approved(prepared)
                if approved is None:
                    return Status.REFUSED
                prepared = approved
        if prepared.edited:
            self._turn.edited(prepared.call)
            await self._tell(prepared, CallEdited)
        return await self._run(prepared)

    def _prepare(self, call: NewCall) -> _Prepared:
        return _prepare(self._kit.registry.get(call.tool), call)

    def _decide(self, prepared: _Prepared) -> Decision:
        manifest = prepared.tool.manifest
        arguments = prepared.call.arguments
        approved = self._session.approved(self._peer, manifest.name, manifest.safety, arguments)
        return decide(manifest.safety, approved=approved, interactive=self._interactive, plan=False)

    async def _tell(
        self, prepared: _Prepared, kind: type[CallAnnounced] = CallAnnounced, **more: Any
    ) -> None:
        await self._turn.emit(
            kind(
                turn=self._turn.id,
                call=prepared.call.id,
                tool=prepared.call.tool,
                args=prepared.call.arguments,
                safety=prepared.tool.manifest.safety,
                summary=prepared.summary,
                **more,
            )
        )

    async def _tell_question(self, prepared: _Prepared) -> None:
        await self._tell(prepared, ApprovalRequired, asks=prepared.tool.manifest.asks)

    async def _approved(self, prepared: _Prepared) -> _Prepared | None:
        """Ask and wait. Returns what may run, as the user may have edited it; raises TimeoutError when nobody
        answers."""
        self._waiting = waiting = _Waiting(prepared, asyncio.get_running_loop().create_future())
        left_s = self._turn.pause_clock()
        try:
            await self._turn.enter(State.PAUSED)
            await self._tell_question(prepared)
            async with asyncio.timeout(self._kit.config.approval_timeout_s):
                return await waiting.answer
        finally:
            self._waiting = None
            self._turn.resume_clock(left_s)

    async def _run(self, prepared: _Prepared) -> Status:
        call, turn = prepared.call, self._turn
        await turn.enter(State.CALLING_TOOL)
        await self._kit.store.begin_call(call.id, call.arguments if prepared.edited else None)

        async def on_text(text: str) -> None:
            await turn.emit(ToolOutput(turn=turn.id, call=call.id, text=text))

        self._session.check_frozen()
        spec = run_spec(prepared.tool.manifest, prepared.argv, self._session.user, session=self._session.id)
        started = time.monotonic()
        try:
            outcome = await run_tool(self._kit.sandbox, spec, self._kit.config.output_keep_bytes, on_text)
        finally:
            turn.tool_s += time.monotonic() - started
        result = outcome.result
        log.info(
            "call %s of %s ended, exit status %s",
            call.id,
            call.tool,
            result.exit_code,
            extra={
                "CLAWOS_SESSION": self._session.id,
                "CLAWOS_TURN": turn.id,
                "CLAWOS_CALL": call.id,
                "CLAWOS_TOOL": call.tool,
                "CLAWOS_UID": self._session.user.uid,
            },
        )
        # First on disk, then told: though its reader has left, a call that ran is recorded as such.
        state = "done" if result.ok else "failed"
        await turn.close_calls(
            [CallEnd(call.id, call.tool, state, _for_model(prepared, outcome), result.exit_code)]
        )
        await turn.emit(
            ToolResult(
                turn=turn.id,
                call=call.id,
                tool=call.tool,
                ok=result.ok,
                exit_code=result.exit_code,
                signal=result.signal,
                limit=result.limit,
                output=outcome.output,
                truncated=outcome.truncated,
                wall_s=result.wall_s,
            )
        )
        return Status.DONE if result.ok else Status.FAILED


def _prepare(tool: Tool, call: NewCall, *, edited: bool = False) -> _Prepared:
    """Raises ArgumentsInvalid."""
    arguments = tool.check(call.arguments)
    argv = expand(tool.manifest.argv, arguments)
    words = summary(tool.manifest.name, arguments)
    return _Prepared(tool, replace(call, arguments=arguments), argv, words, edited)


def _changed(before: _Prepared, after: _Prepared) -> list[str]:
    """Names of the arguments that are not what they were."""
    was, now = before.call.arguments, after.call.arguments
    return sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))


def _for_model(prepared: _Prepared, outcome: Outcome) -> str:
    """The output with what a reader must know beside it."""
    result = outcome.result
    notes = [f"the user edited this call before it ran: {prepared.summary}"] if prepared.edited else []
    if outcome.truncated:
        notes.append("the output was longer and is cut here")
    if result.limit:
        notes.append(f"stopped at its limit: {result.limit}")
    elif result.signal is not None:
        notes.append(f"ended by signal {result.signal}")
    elif result.exit_code:
        notes.append(f"exit status {result.exit_code}")
    return outcome.output + "".join(f"\n[{note}]" for note in notes)
