"""The question whether a call may run, asked so that nobody answers it by accident.

What was typed before the question stood on the screen does not count, nor does what comes within the moment
that a finger already on its way needs; Enter alone answers nothing; and the call is shown from its parsed
arguments, with every character visible that a terminal would hide.
"""

from __future__ import annotations

import os
import re
import select
import termios
import time

from clawos.clawsh.clean import beyond_ascii, visible
from clawos.clawsh.view import argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clawos.clawsh.events import Event
    from clawos.clawsh.interrupt import Interrupts
    from clawos.clawsh.sink import Sink

GRACE_S = 0.3
_LONGEST = 4096
"""The longest value that is shown whole; a shell command is never longer."""
_SENTENCE = 120
"""The question is one sentence if that is no longer; else each argument has its line."""
_ANSWERS = {
    "y": "yes", "yes": "yes", "n": "no", "no": "no", "a": "always", "always": "always",
    "e": "edit", "edit": "edit",
}  # fmt: skip
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


class Answer:
    """What the user decided, and the arguments if they were changed."""

    __slots__ = ("args", "decision")

    def __init__(self, decision: str, args: dict[str, Any] | None = None) -> None:
        self.decision, self.args = decision, args


def ask(
    event: Event, screen: Sink, keyboard: int, interrupts: Interrupts, edited: dict[str, Any] | None = None
) -> Answer | None:
    """Ask until there is an answer: "yes", "no" or "always"; None on Ctrl-C. Ctrl-D and a lost terminal mean
    no. `edited` are arguments of the user's that did not pass."""
    args = event["args"] if edited is None else edited
    while True:
        decision = _decide(event, args, screen, keyboard, interrupts)
        if decision != "edit":
            changed = None if decision == "no" or args == event["args"] else args
            return Answer(decision, changed) if decision else None
        args = _edit(args, screen)


def _decide(
    event: Event, args: dict[str, Any], screen: Sink, keyboard: int, interrupts: Interrupts
) -> str | None:
    """One question, until it is answered."""
    choices = ["[y]es", "[n]o", *(["[e]dit"] if args else []), "[a]lways in this shell"]
    question = f"{_show(event, args, screen)} {screen.style('  '.join(choices) + ': ', 'ask')}"
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
        if answer and (args or answer != "edit"):
            return answer
        screen.write(question)


def _show(event: Event, args: dict[str, Any], screen: Sink) -> str:
    """The call, as lines of its own where it is long or odd. Returns what stands before the choices."""
    kind = "This is DANGEROUS" if event["class"] == "dangerous" else "This changes something"
    values = {name: visible(value) if isinstance(value, str) else str(value) for name, value in args.items()}
    plain = all(value and value == str(args[name]) and value.isascii() for name, value in values.items())
    named = set(_PLACEHOLDER.findall(event["asks"]))
    length = len(event["asks"]) + sum(map(len, values.values()))
    if event["asks"] and named == set(args) and plain and length <= _SENTENCE:
        sentence = _PLACEHOLDER.sub(lambda match: screen.style(values[match[1]], "strong"), event["asks"])
        return f"{screen.style(f'{kind}:', 'ask')} {sentence}?"
    screen.line(f"{kind}: {visible(event['tool'])}", "ask")
    for name, value in args.items():
        screen.line(f"  {visible(name)} = {argument(value, _LONGEST)}")
        lookalikes = beyond_ascii(str(value))
        if lookalikes:
            screen.line(f"    (holds characters beyond ASCII: {', '.join(lookalikes)})", "ask")
    return screen.style("Allow this?", "ask")


def _edit(args: dict[str, Any], screen: Sink) -> dict[str, Any]:
    """The arguments as the user wants them, one after the other; as they were on Ctrl-C and Ctrl-D."""
    from clawos.clawsh.editor import edit_value

    changed: dict[str, Any] = {}
    try:
        for name, value in args.items():
            text = edit_value(screen, f"  {visible(name)} = ", str(value))
            # What is no number any more is the agent's to refuse, in its words.
            number = (
                isinstance(value, int) and not isinstance(value, bool) and re.fullmatch(r"-?[0-9]+", text)
            )
            changed[name] = int(text) if number else text
    except (KeyboardInterrupt, EOFError):
        screen.line("  as it was")
        return args
    return changed


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
