"""One call of a turn: known and valid, permitted, run, told."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clawos.agent.events import ApprovalRequired, CallAnnounced, Failure, Status, ToolOutput, ToolResult
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


class Caller:
    """Carries out the calls of one turn, one after the other."""

    def __init__(self, turn: Turn, session: Session, peer: Peer, kit: Kit, *, interactive: bool) -> None:
        self._turn = turn
        self._peer = peer
        self._session = session
        self._kit = kit
        self._interactive = interactive
        self._waiting: tuple[_Prepared, asyncio.Future[tuple[Word, _Prepared]]] | None = None

    def answer(self, peer: Peer, call: str, word: Word, arguments: dict[str, Any] | None = None) -> None:
        """Take the user's word, and the arguments that the user changed, which are checked as a model's are.

        Raises BadRequest when this call does not wait for an answer, ArgumentsInvalid.
        """
        if self._waiting is None or self._waiting[0].call.id != call or self._waiting[1].done():
            raise BadRequest(
                f"no call {call[:32]!r} waits for an answer", "it may have been answered already"
            )
        prepared, waiting = self._waiting
        if arguments is not None:
            prepared = self._prepare(NewCall(prepared.call.id, prepared.call.tool, arguments))
        if word == "always":
            manifest = prepared.tool.manifest
            self._session.approve_always(peer, manifest.name, manifest.safety, prepared.call.arguments)
        waiting.set_result((word, prepared))

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
                await self._ask(prepared)
                return Status.APPROVAL_NEEDED
            case Decision.ASK:
                approved = await self._approved(prepared)
                if approved is None:
                    return Status.REFUSED
                if approved.call.arguments != prepared.call.arguments:
                    await self._turn.edited(approved.call)
                    await self._tell(approved)
                prepared = approved
        return await self._run(prepared)

    def _prepare(self, call: NewCall) -> _Prepared:
        tool = self._kit.registry.get(call.tool)
        arguments = tool.check(call.arguments)
        argv = expand(tool.manifest.argv, arguments)
        return _Prepared(
            tool, NewCall(call.id, call.tool, arguments), argv, summary(tool.manifest.name, arguments)
        )

    def _decide(self, prepared: _Prepared) -> Decision:
        manifest = prepared.tool.manifest
        arguments = prepared.call.arguments
        approved = self._session.approved(self._peer, manifest.name, manifest.safety, arguments)
        return decide(manifest.safety, approved=approved, interactive=self._interactive, plan=False)

    async def _tell(self, prepared: _Prepared) -> None:
        await self._turn.emit(CallAnnounced(**self._fields(prepared)))

    async def _ask(self, prepared: _Prepared) -> None:
        await self._turn.emit(ApprovalRequired(**self._fields(prepared), asks=prepared.tool.manifest.asks))

    def _fields(self, prepared: _Prepared) -> dict[str, Any]:
        return {
            "turn": self._turn.id,
            "call": prepared.call.id,
            "tool": prepared.call.tool,
            "args": prepared.call.arguments,
            "safety": prepared.tool.manifest.safety,
            "summary": prepared.summary,
        }

    async def _approved(self, prepared: _Prepared) -> _Prepared | None:
        """Ask and wait. Returns the call as the user wants it, None for no; raises TimeoutError when nobody
        answers.
        """
        waiting: asyncio.Future[tuple[Word, _Prepared]] = asyncio.get_running_loop().create_future()
        self._waiting = (prepared, waiting)
        left_s = self._turn.pause_clock()
        try:
            await self._turn.enter(State.PAUSED)
            await self._ask(prepared)
            async with asyncio.timeout(self._kit.config.approval_timeout_s):
                word, approved = await waiting
        finally:
            self._waiting = None
            self._turn.resume_clock(left_s)
        edited = approved.call.arguments != prepared.call.arguments
        log.info(
            "call %s: the user said %s%s",
            prepared.call.id,
            word,
            " to a call of their own arguments" if edited else "",
            extra={
                "CLAWOS_CALL": prepared.call.id,
                "CLAWOS_TOOL": prepared.call.tool,
                "CLAWOS_DECISION": word,
                "CLAWOS_EDITED": str(int(edited)),
            },
        )
        return approved if word != "no" else None

    async def _run(self, prepared: _Prepared) -> Status:
        call, turn = prepared.call, self._turn
        await turn.enter(State.CALLING_TOOL)
        await self._kit.store.begin_call(call.id)

        async def on_text(text: str) -> None:
            await turn.emit(ToolOutput(turn=turn.id, call=call.id, text=text))

        spec = run_spec(prepared.tool.manifest, prepared.argv, self._session.user)
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
        await turn.close_calls([CallEnd(call.id, call.tool, state, _for_model(outcome), result.exit_code)])
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


def _for_model(outcome: Outcome) -> str:
    """The output with what a reader must know beside it."""
    result = outcome.result
    notes = []
    if outcome.truncated:
        notes.append("the output was longer and is cut here")
    if result.limit:
        notes.append(f"stopped at its limit: {result.limit}")
    elif result.signal is not None:
        notes.append(f"ended by signal {result.signal}")
    elif result.exit_code:
        notes.append(f"exit status {result.exit_code}")
    return outcome.output + "".join(f"\n[{note}]" for note in notes)
