"""One request, from the words to the exit code."""

from __future__ import annotations

import os
import select
import time

from clawos.clawsh import exit_codes
from clawos.clawsh.events import Event, EventInvalid
from clawos.clawsh.interrupt import Interrupts
from clawos.core.errors import PREFIX, ClawError, RemoteError
from clawos.core.wire import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from clawos.clawsh.agent import Agent
    from clawos.clawsh.sink import Sink
    from clawos.clawsh.view import View

    Call = dict[str, Any]

# After Ctrl-C the agent gets this long to end the turn in good order; then we hang up, which ends it too.
CANCEL_S = 5
_MAX_LINE = 4 * 1024 * 1024


class _Calls:
    """The calls of a turn: as the model made them, and as they were let run."""

    def __init__(self) -> None:
        self._was: dict[str, Call] = {}
        self._ran: dict[str, Call] = {}
        self.edited = False

    def announced(self, event: Event) -> None:
        self._was[event["call"]] = self._ran[event["call"]] = {"tool": event["tool"], "args": event["args"]}

    def asked(self, event: Event) -> None:
        self._ran.pop(event["call"], None)

    def approved(self, event: Event, args: dict[str, Any]) -> None:
        self._ran[event["call"]] = {"tool": event["tool"], "args": args}
        self.edited = self.edited or args != event["args"]

    def correction(self) -> tuple[list[Call], list[Call]]:
        """What ran, and what the model wanted to."""
        return list(self._ran.values()), list(self._was.values())


class Person:
    """Somebody at a terminal who can be asked."""

    def __init__(self, screen: Sink, keyboard: int) -> None:
        self.screen, self.keyboard = screen, keyboard


def run(agent: Agent, view: View, text: str, *, plan: bool = False, person: Person | None = None) -> int:
    """Carry out one request. Returns an exit code; raises ReaderGone when nobody reads our output."""
    calls = _Calls()
    with Interrupts() as interrupts:
        agent.wire.wake_fd = interrupts.fd
        events = -1
        try:
            view.waiting("thinking")
            events = agent.ask(text, plan=plan, interactive=person is not None)
            status = _follow(agent, view, events, person, interrupts, calls)
        except Interrupted:
            # Not known whether the agent had begun: a connection that is gone ends whatever it had.
            agent.forget()
            status = "interrupted"
        finally:
            if events >= 0:
                os.close(events)
            agent.release()
            if calls.edited:
                _keep_correction(view, text, calls)
        view.end(status)
        return exit_codes.OF_STATUS.get(status, exit_codes.FAILED)


def _follow(
    agent: Agent, view: View, events: int, person: Person | None, interrupts: Interrupts, calls: _Calls
) -> str:
    """Show the events until the last. Returns the status of the turn."""
    cancelled = False
    for line in _lines(events, interrupts):
        if line is None:  # Ctrl-C
            if cancelled:
                return "interrupted"
            cancelled = True
            interrupts.take()
            view.cancelling()
            _cancel(agent)
            continue
        event = Event.parse(line)
        if event.type == "done":
            return str(event["status"])
        view.show(event)
        if event.type == "tool_call":
            calls.announced(event)
        elif event.type == "approval_required":
            calls.asked(event)
            if person is not None and not cancelled:
                _answer(agent, view, event, person, interrupts, calls)
    if cancelled:
        return "interrupted"
    raise EventInvalid(
        "the agent stopped in the middle of the work", "see 'journalctl -u clawos-agent -n 20'"
    )


def _answer(
    agent: Agent, view: View, event: Event, person: Person, interrupts: Interrupts, calls: _Calls
) -> None:
    """Ask until the agent takes the answer. After Ctrl-C there is none, and the interrupt is still to be
    read."""
    from clawos.clawsh.approval import ask

    args = event["args"]
    while True:
        decision = ask(event, args, person.screen, person.keyboard, interrupts)
        if decision is None:
            return
        if decision == "edit":
            from clawos.clawsh.editing import edit

            args = edit(args, person.screen, interrupts)
            continue
        edited = args if args != event["args"] and decision != "no" else None
        try:
            agent.approve(event["call"], decision, edited)
        except RemoteError as error:
            if error.error_name != f"{PREFIX}ArgumentsInvalid":
                raise
            view.fail(error.bus_name, error.message, error.hint)
            continue
        if decision != "no":
            calls.approved(event, args)
        return


def _keep_correction(view: View, text: str, calls: _Calls) -> None:
    """Where the user wants it: what was asked for, and which calls were the right ones."""
    from clawos.clawsh import corrections

    if not corrections.are_kept():
        return
    try:
        corrections.add(text, *calls.correction())
    except ClawError as error:
        view.fail(error.bus_name, error.message, error.hint)
    else:
        view.note("the correction was kept: /corrections show")


def _cancel(agent: Agent) -> None:
    agent.wire.wake_fd = None
    try:
        agent.cancel()
    except ClawError:
        return  # it is over, or the agent is gone: the end of the stream tells


def _lines(fd: int, interrupts: Interrupts) -> Iterator[bytes | None]:
    """Lines of a stream until its end; None each time somebody pressed Ctrl-C, after which time is short."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    poller.register(interrupts.fd, select.POLLIN)
    buffer = bytearray()
    deadline: float | None = None
    while True:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = [found for found, _ in poller.poll(wait)]
        if interrupts.fd in ready:
            deadline = time.monotonic() + CANCEL_S
            yield None
        elif not ready:
            return
        if fd not in ready:
            continue
        data = os.read(fd, 65536)
        if not data:
            return
        buffer += data
        if len(buffer) > _MAX_LINE:
            raise EventInvalid(
                "the agent sent an event beyond all limits", "see 'journalctl -u clawos-agent'"
            )
        *lines, rest = bytes(buffer).split(b"\n")
        buffer = bytearray(rest)
        yield from lines
