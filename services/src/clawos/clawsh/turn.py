"""One request, from the words to the exit code."""

from __future__ import annotations

import os
import select
import time

from clawos.clawsh import exit_codes
from clawos.clawsh.approval import ask
from clawos.clawsh.clean import visible
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

# After Ctrl-C the agent gets this long to end the turn in good order; then we hang up, which ends it too.
CANCEL_S = 5
_MAX_LINE = 4 * 1024 * 1024


class Person:
    """Somebody at a terminal who can be asked."""

    def __init__(self, screen: Sink, keyboard: int) -> None:
        self.screen, self.keyboard = screen, keyboard


def run(agent: Agent, view: View, text: str, *, plan: bool = False, person: Person | None = None) -> int:
    """Carry out one request. Returns an exit code; raises ReaderGone when nobody reads our output."""
    with Interrupts() as interrupts:
        agent.wire.wake_fd = interrupts.fd
        events = -1
        try:
            view.waiting("thinking")
            events = agent.ask(text, plan=plan, interactive=person is not None)
            changes = Changes()
            status = _follow(agent, view, events, person, interrupts, changes)
            if changes.edited and status == "done":
                _keep(view, text, changes)
        except Interrupted:
            # Not known whether the agent had begun: a connection that is gone ends whatever it had.
            agent.forget()
            status = "interrupted"
        finally:
            if events >= 0:
                os.close(events)
            agent.release()
        view.end(status)
        return exit_codes.OF_STATUS.get(status, exit_codes.FAILED)


class Changes:
    """The calls of a turn, as the model asked for them and as they ran."""

    def __init__(self) -> None:
        self.was: dict[str, dict[str, Any]] = {}
        self.calls: dict[str, dict[str, Any]] = {}

    @property
    def edited(self) -> bool:
        return self.was != self.calls

    def see(self, event: Event) -> None:
        """Take a call as announced; one that the user changed is announced again."""
        call = {"tool": event["tool"], "args": event["args"]}
        self.was.setdefault(event["call"], call)
        self.calls[event["call"]] = call


def _keep(view: View, text: str, changes: Changes) -> None:
    from clawos.clawsh.corrections import Corrections

    corrections = Corrections()
    if not corrections.wanted:
        return
    try:
        corrections.keep(text, list(changes.calls.values()), list(changes.was.values()))
    except OSError as error:
        words = f"the correction was not kept: {error.strerror or error}"
        view.fail("org.clawos.Error.Unavailable", words, "see /corrections")


def _answer(agent: Agent, event: Event, person: Person, interrupts: Interrupts) -> None:
    """Ask, until there is an answer that the agent takes, or a Ctrl-C that is still to be read."""
    edited = None
    while True:
        answer = ask(event, person.screen, person.keyboard, interrupts, edited)
        if answer is None:
            return
        try:
            agent.approve(event["call"], answer.decision, answer.args)
        except RemoteError as error:
            if error.error_name != f"{PREFIX}ArgumentsInvalid":
                raise
            edited = answer.args
            person.screen.line(f"  {visible(error.message)}", "bad")
        else:
            return


def _follow(
    agent: Agent, view: View, events: int, person: Person | None, interrupts: Interrupts, changes: Changes
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
        if event.type == "tool_call":
            changes.see(event)
        view.show(event)
        if event.type == "approval_required" and person is not None and not cancelled:
            _answer(agent, event, person, interrupts)
    if cancelled:
        return "interrupted"
    raise EventInvalid(
        "the agent stopped in the middle of the work", "see 'journalctl -u clawos-agent -n 20'"
    )


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
