"""One turn: from a request to its answer, through as many tool calls as it takes and the limits allow."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from clawos.agent.answer import Answer
from clawos.agent.answer import ask as ask_model
from clawos.agent.calling import Caller
from clawos.agent.conversation import SYSTEM, Message, ToolCall, window
from clawos.agent.errors import StepLimit
from clawos.agent.events import Done, Event, Failure, StateChanged, Status, Text
from clawos.agent.kit import Kit
from clawos.agent.ports import CallEnd, ChatRequest, NewCall, Peer, Sink
from clawos.agent.session import Session
from clawos.agent.states import State
from clawos.core.errors import PREFIX, ClawError, Internal, RemoteError
from clawos.core.parse import Record
from clawos.core.stream import StreamClosed

log = logging.getLogger(__name__)

SINGLE_SHOT = "clawos-tags-1"
"""The dialect of the built-in model: it turns a request into calls, and their results are the answer."""

# A reader that stopped reading must not hold the turn's end up.
FAREWELL_S = 5.0

_CALL_STATE = {Status.REFUSED: "refused", Status.APPROVAL_NEEDED: "refused", Status.FAILED: "failed"}


class AskRequest(Record, frozen=True):
    """What `Ask` is given."""

    text: str
    plan: bool = False
    interactive: bool = False


class Turn:
    """A turn under way. It ends by itself, by `stop`, or when its reader closes the stream."""

    def __init__(self, session: Session, peer: Peer, request: AskRequest, sink: Sink, kit: Kit) -> None:
        self.id = secrets.token_hex(8)
        self._session = session
        self._request = request
        self._sink = sink
        self._kit = kit
        self._caller = Caller(self, session, peer, kit, interactive=request.interactive)
        self._stop = asyncio.Event()
        self._final_state = State.IDLE
        self._deadline: asyncio.Timeout
        self._begun = False
        self._said: list[str] = []
        self._open_calls: list[NewCall] = []
        self._model = ""
        self._prompt_tokens = self._completion_tokens = 0
        self._model_s = 0.0
        self.tool_s = 0.0

    def stop(self, final_state: State = State.IDLE) -> None:
        """End the turn now, with everything that it started."""
        self._final_state = final_state
        self._stop.set()

    def answer(
        self,
        peer: Peer,
        call: str,
        decision: Literal["yes", "no", "always"],
        edited: dict[str, Any] | None = None,
    ) -> None:
        """The user's word on the call that waits for it. Raises BadRequest when that call does not wait, and
        ArgumentsInvalid for edited arguments that it cannot run with: then it waits on."""
        self._caller.answer(peer, call, decision, edited)

    def edited(self, call: NewCall) -> None:
        """Let the conversation say what runs, where the user changed it; the store does the same."""
        history = self._session.history
        assert history is not None
        answer = next(at for at in reversed(range(len(history))) if history[at].role == "assistant")
        calls = list(history[answer].tool_calls)
        # The open calls are the last of the answer's.
        at = len(calls) - len(self._open_calls) + [c.id for c in self._open_calls].index(call.id)
        calls[at] = ToolCall(tool=call.tool, args=call.arguments)
        history[answer] = msgspec.structs.replace(history[answer], tool_calls=tuple(calls))

    async def run(self) -> None:
        """Carry the turn out; never raises."""
        started = time.monotonic()
        work = asyncio.create_task(self._outcome())
        ends = [asyncio.create_task(self._stop.wait()), asyncio.create_task(self._sink.gone.wait())]
        await asyncio.wait([work, *ends], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        status, error = await work
        for task in ends:
            task.cancel()
        status = await self._settle(status)
        if isinstance(error, Internal):
            # A change may have failed midway: the next turn reads the conversation as it is on disk.
            self._session.history = None
        log.info(
            "turn ended: %s",
            status,
            extra={"CLAWOS_SESSION": self._session.id, "CLAWOS_TURN": self.id, "CLAWOS_STATUS": str(status)},
        )
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._say_goodbye(status, error, time.monotonic() - started)
        except (StreamClosed, TimeoutError):
            log.debug("nobody read the end of turn %s", self.id)
        finally:
            self._session.turn = None
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._sink.close()

    async def emit(self, event: Event) -> None:
        await self._sink.send_json(event)

    async def enter(self, state: State) -> None:
        """Go to a state and say so; staying where we are says nothing."""
        if self._session.state is not state:
            self._session.machine.to(state)
            await self.emit(StateChanged(turn=self.id, state=state))

    def pause_clock(self) -> float:
        """Stop the turn's wall clock while a person thinks. Returns what is left, for `resume_clock`."""
        when = self._deadline.when()
        assert when is not None
        self._deadline.reschedule(None)
        return when - asyncio.get_running_loop().time()

    def resume_clock(self, left_s: float) -> None:
        self._deadline.reschedule(asyncio.get_running_loop().time() + left_s)

    async def _outcome(self) -> tuple[Status, ClawError | None]:
        """The turn's work; every way that it can end becomes a status, and being cancelled is one of them."""
        try:
            async with asyncio.timeout(self._kit.config.turn_timeout_s) as self._deadline:
                return await self._work(), None
        except TimeoutError:
            return Status.TIMED_OUT, None
        except (asyncio.CancelledError, StreamClosed):
            return Status.INTERRUPTED, None
        except ClawError as error:
            return Status.FAILED, error
        except Exception:
            return Status.FAILED, _incident(f"turn {self.id}")

    async def _work(self) -> Status:
        session, store = self._session, self._kit.store
        await self.enter(State.THINKING)
        if session.history is None:
            session.history = await store.messages(session.id, self._kit.config.context_messages)
        # Said first: were we cancelled while it is written, the turn would be there and nobody would end it.
        self._begun = True
        session.history.append(Message(role="user", content=self._request.text))
        await store.begin_turn(session.id, self.id, self._request.text)
        for _ in range(self._kit.config.max_steps):
            await self.enter(State.THINKING)
            answer = await self._think(session.history)
            calls = [NewCall(secrets.token_hex(6), c.tool, c.args) for c in answer.calls]
            if self._request.plan:
                return await self._plan(answer, calls)
            await self._remember(answer.text, calls)
            if not calls:
                return Status.DONE
            dialect = answer.done.dialect or await self._kit.model.dialect()
            for call in calls:
                status = await self._caller.call(call)
                if status in (Status.REFUSED, Status.APPROVAL_NEEDED):
                    return status
                if dialect == SINGLE_SHOT and status is not Status.DONE:
                    # As with `&&`: what was meant to follow a success does not follow a failure.
                    return status
            if dialect == SINGLE_SHOT:
                return Status.DONE
        raise StepLimit(
            f"the model called tools {self._kit.config.max_steps} times over without coming to an answer",
            "ask for less at once, or raise max_steps in /etc/clawos/agent.toml",
        )

    async def _think(self, history: Sequence[Message]) -> Answer:
        config = self._kit.config
        started = time.monotonic()
        self._said = []
        try:
            try:
                answer = await self._ask(window(history, config.context_messages, config.context_bytes))
            except RemoteError as error:
                newest = window(history, 1, 1)
                if error.error_name != f"{PREFIX}ContextFull" or self._said or len(newest) == len(history):
                    raise
                # The model holds less than our limits: what it must know is the request at hand.
                answer = await self._ask(newest)
        finally:
            self._model_s += time.monotonic() - started
        self._model = answer.done.model
        self._prompt_tokens += answer.done.prompt_tokens
        self._completion_tokens += answer.done.completion_tokens
        return answer

    async def _ask(self, messages: Sequence[Message]) -> Answer:
        system = Message(role="system", content=SYSTEM)
        request = ChatRequest(messages=(system, *messages), tools=self._kit.registry.offers)
        return await ask_model(self._kit.model, request, self._on_text)

    async def _on_text(self, text: str) -> None:
        self._said.append(text)
        await self.enter(State.STREAMING)
        await self.emit(Text(turn=self.id, text=text))

    async def _plan(self, answer: Answer, calls: Sequence[NewCall]) -> Status:
        planned = [f"[planned, not run] {await self._caller.announce(call)}" for call in calls]
        await self._remember("\n".join([*filter(None, [answer.text]), *planned]), [])
        return Status.PLANNED

    async def _remember(self, text: str, calls: Sequence[NewCall]) -> None:
        """Keep the model's answer; from here on each of its calls must be ended."""
        assert self._session.history is not None
        self._said = []
        self._open_calls = list(calls)
        asked = tuple(ToolCall(tool=c.tool, args=c.arguments) for c in calls)
        self._session.history.append(Message(role="assistant", content=text, tool_calls=asked))
        await self._kit.store.add_answer(self._session.id, self.id, text, calls)

    async def close_calls(self, ends: Sequence[CallEnd]) -> None:
        """Write down how calls ended; what is told to the reader comes after it."""
        assert self._session.history is not None
        ended = {end.id for end in ends}
        self._open_calls = [call for call in self._open_calls if call.id not in ended]
        self._session.history += [Message(role="tool", content=e.content, tool=e.tool) for e in ends]
        await self._kit.store.end_calls(self._session.id, self.id, ends)

    async def _settle(self, status: Status) -> Status:
        """Leave the conversation whole: what was said is kept, every call has an end, the turn a status."""
        try:
            if self._said:
                await self._remember("".join(self._said), [])
            state = _CALL_STATE.get(status, "interrupted")
            if self._open_calls:
                await self.close_calls(
                    [CallEnd(c.id, c.tool, state, f"[{state}: no result]") for c in self._open_calls]
                )
            if self._begun:
                await self._kit.store.end_turn(self.id, status)
        except Exception:
            _incident(f"the end of turn {self.id}")
            self._session.history = None
            return Status.FAILED
        if self._session.history is not None:
            del self._session.history[: -2 * self._kit.config.context_messages]
        return status

    async def _say_goodbye(self, status: Status, error: ClawError | None, wall_s: float) -> None:
        try:
            if error is not None:
                await self.emit(
                    Failure(turn=self.id, name=error.bus_name, message=error.message, hint=error.hint)
                )
                await self.enter(State.ERROR)
            await self.enter(self._final_state)
        finally:
            if self._session.state is not self._final_state:
                self._session.machine.to(self._final_state)
            # Free before the last event: whoever reads it may ask again at once.
            self._session.turn = None
        await self.emit(
            Done(
                turn=self.id,
                status=status,
                model=self._model,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                model_s=round(self._model_s, 4),
                tool_s=round(self.tool_s, 4),
                wall_s=round(wall_s, 4),
            )
        )


def _incident(what: str) -> Internal:
    """A bug: its details go to the journal, its number to the caller."""
    incident = secrets.token_hex(4)
    log.exception("incident %s in %s", incident, what, extra={"CLAWOS_INCIDENT": incident})
    return Internal(
        "something went wrong inside the agent",
        f"see 'journalctl CLAWOS_INCIDENT={incident}'",
        incident=incident,
    )
