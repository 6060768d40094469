"""The question whether a call may run, asked so that nobody answers it by accident.

What was typed before the question stood on the screen does not count, nor does what comes within the moment
that a finger already on its way needs; Enter alone answers nothing; and the call is shown from its parsed
arguments, with every character visible that a terminal would hide.
"""

from __future__ import annotations

import os
import select
import termios
import time

from clawos.clawsh.clean import beyond_ascii, visible
from clawos.clawsh.view import argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clawos.clawsh.events import Event
    from clawos.clawsh.interrupt import Interrupts
    from clawos.clawsh.sink import Sink

GRACE_S = 0.3
_LONGEST = 4096
"""The longest value that is shown whole; a shell command is never longer."""
_ANSWERS = {"y": "yes", "yes": "yes", "n": "no", "no": "no", "a": "always", "always": "always"}


def ask(event: Event, screen: Sink, keyboard: int, interrupts: Interrupts) -> str | None:
    """Ask until there is an answer: "yes", "no" or "always"; None on Ctrl-C. Ctrl-D and a lost terminal mean
    no."""
    _show(event, screen)
    question = screen.style("Allow this? [y]es  [n]o  [a]lways in this shell: ", "ask")
    screen.write(question)
    _drop_typed(keyboard)
    while True:
        line = _read_line(keyboard, interrupts)
        if line is None:
            screen.write("\n")
            return None
        if not line:
            screen.write("\n")
            return "no"
        answer = _ANSWERS.get(line.decode(errors="replace").strip().lower())
        screen.at_line_start = True  # the terminal echoed the newline
        if answer:
            return answer
        screen.write(question)


def _show(event: Event, screen: Sink) -> None:
    kind = "This is DANGEROUS" if event["class"] == "dangerous" else "This changes something"
    screen.line(f"{kind}: {visible(event['tool'])}", "ask")
    for name, value in event["args"].items():
        screen.line(f"  {visible(name)} = {argument(value, _LONGEST)}")
        lookalikes = beyond_ascii(str(value))
        if lookalikes:
            screen.line(f"    (holds characters beyond ASCII: {', '.join(lookalikes)})", "ask")


def _drop_typed(keyboard: int) -> None:
    """Forget what was typed ahead, and what still comes in the moment after the question appeared."""
    deadline = time.monotonic() + GRACE_S
    while (left := deadline - time.monotonic()) > 0:
        _flush(keyboard)
        time.sleep(min(left, 0.05))
    _flush(keyboard)


def _flush(keyboard: int) -> None:
    try:
        termios.tcflush(keyboard, termios.TCIFLUSH)
    except termios.error:
        return  # not a terminal any more: the read that follows finds out


def _read_line(keyboard: int, interrupts: Interrupts) -> bytes | None:
    """A line of the terminal in its own line mode; b"" at its end, None on Ctrl-C."""
    poller = select.poll()
    poller.register(keyboard, select.POLLIN)
    poller.register(interrupts.fd, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poller.poll()]
        if interrupts.fd in ready:
            return None
        if keyboard in ready:
            try:
                return os.read(keyboard, 4096)
            except OSError:
                return b""
