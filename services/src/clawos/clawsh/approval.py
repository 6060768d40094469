"""The question whether a call may run, asked so that nobody answers it by accident.

It reads as a sentence, in the words of the tool's manifest. What was typed before the question stood on the
screen does not count, nor does what comes within the moment that a finger already on its way needs; Enter
alone answers nothing; and the values are those of the parsed call, whole, with every character visible that a
terminal would hide.
"""

from __future__ import annotations

import os
import re
import select
import termios
import time

from clawos.clawsh.clean import beyond_ascii, visible
from clawos.clawsh.view import argument, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clawos.clawsh.events import Event
    from clawos.clawsh.interrupt import Interrupts
    from clawos.clawsh.sink import Sink

GRACE_S = 0.3
_LONGEST = 4096
"""The longest value that is shown whole; a shell command is never longer."""
_IN_THE_SENTENCE = 60
"""A longer value stands on a line of its own, above the question."""
_ANSWERS = {"y": "yes", "yes": "yes", "n": "no", "no": "no", "a": "always", "always": "always"}
_EDIT = {"e": "edit", "edit": "edit"}
_PLACEHOLDER = re.compile(r"(\{[a-z][a-z0-9_]*\})")


def ask(
    event: Event, args: dict[str, Any], screen: Sink, keyboard: int, interrupts: Interrupts
) -> str | None:
    """Ask until there is an answer: "yes", "no", "always" or "edit"; None on Ctrl-C. Ctrl-D and a lost
    terminal mean no. `args` are those that the call would run with."""
    answers = {**_ANSWERS, **_EDIT} if args else _ANSWERS
    question = _question(event, args, screen) + "? [y]es [n]o [a]lways" + (" [e]dit: " if args else ": ")
    screen.end_line()
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
        answer = answers.get(line.decode(errors="replace").strip().lower())
        screen.at_line_start = True  # the terminal echoed the newline
        if answer:
            return answer
        screen.line(_explained(event, edit=bool(args)), "dim")
        screen.write(question)


def _question(event: Event, args: dict[str, Any], screen: Sink) -> str:
    """The sentence up to its question mark; what does not fit into it is shown on lines above it."""
    words = event["asks"]
    if not words or not _named(words) <= args.keys():
        words = event["tool"] + "".join(f" {name}={{{name}}}" for name in args)
    short = {name: word for name in _named(words) if (word := _short(args[name])) is not None}
    for name, value in args.items():
        if name not in short:
            screen.line(f"  {visible(name)} = {argument(value, _LONGEST)}")
    for name, value in args.items():
        if lookalikes := beyond_ascii(str(value)):
            screen.line(f"  {visible(name)} holds characters beyond ASCII: {', '.join(lookalikes)}", "ask")
    sentence = screen.style("DANGEROUS: ", "ask") if event["class"] == "dangerous" else ""
    for part in _PLACEHOLDER.split(words):
        name = part[1:-1]
        if not _PLACEHOLDER.fullmatch(part):
            sentence += visible(part)
        elif name in short:
            sentence += screen.style(short[name], "strong")
        else:
            sentence += f"({name}, above)"
    return sentence


def _named(words: str) -> set[str]:
    return {part[1:-1] for part in _PLACEHOLDER.findall(words)}


def _short(value: Any) -> str | None:
    """The value as a word of the sentence, in quotes where it could be taken for more than one."""
    text = visible(str(value))
    if "\n" in str(value) or len(text) > _IN_THE_SENTENCE:
        return None
    plain = text and all(character.isalnum() or character in "._-/:@%+,~\\" for character in text)
    return text if plain or not isinstance(value, str) else quoted(text)


def _explained(event: Event, *, edit: bool) -> str:
    same = "the very same" if event["class"] == "dangerous" else visible(event["tool"])
    change = ", e edits it first" if edit else ""
    return f"y runs it, n does not{change},\na runs it and asks no more for {same} in this shell"


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
