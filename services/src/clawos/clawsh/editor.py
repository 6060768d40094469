"""Reading a line from a person: prompt_toolkit on a terminal that can, plain lines on one that cannot.

prompt_toolkit is imported here and nowhere else, and only when a person sits at a terminal.
"""

from __future__ import annotations

import os
import select

from clawos.clawsh.interrupt import Interrupts
from clawos.clawsh.sink import Sink, is_dumb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from prompt_toolkit.output.vt100 import Vt100_Output

    from clawos.clawsh.history import History

    class Editor(Protocol):
        """Reads one line. Raises KeyboardInterrupt on Ctrl-C and EOFError on Ctrl-D."""

        def read(self, prompt: str) -> str: ...


def make_editor(screen: Sink, history: History, tools: Callable[[], list[str]]) -> Editor:
    return PlainEditor(screen, history) if is_dumb() else rich_editor(history, tools)


def edit_value(screen: Sink, prompt: str, value: str) -> str:
    """A value as the user changes it; it stands there to begin with.

    On a dumb terminal it is shown, and Enter alone keeps it. Raises KeyboardInterrupt and EOFError.
    """
    if is_dumb():
        shown = value.replace("\n", "\\n")
        return PlainEditor(screen, None).read(f"{prompt}[{shown}] ") or value
    from prompt_toolkit.output import ColorDepth
    from prompt_toolkit.shortcuts import PromptSession

    session: PromptSession[str] = PromptSession(output=_output(), color_depth=ColorDepth.DEPTH_1_BIT)
    return session.prompt(prompt, default=value)


class PlainEditor:
    """The terminal's own line mode: for TERM=dumb, where every escape sequence would be litter."""

    def __init__(self, screen: Sink, history: History | None) -> None:
        self._screen, self._history = screen, history
        self._pending = b""

    def read(self, prompt: str) -> str:
        # A signal that comes right before read(2) would not end it: hence a descriptor to wait on.
        with Interrupts() as interrupts:
            self._screen.write(prompt)
            self._screen.at_line_start = True  # the terminal echoes the newline
            poller = select.poll()
            poller.register(0, select.POLLIN)
            poller.register(interrupts.fd, select.POLLIN)
            while b"\n" not in self._pending:
                poller.poll()
                if interrupts.take():
                    self._pending = b""
                    raise KeyboardInterrupt
                try:
                    data = os.read(0, 65536)
                except OSError:
                    data = b""
                if not data:
                    raise EOFError
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        text = line.decode(errors="replace")
        if self._history is not None:
            self._history.append(text)
        return text


def rich_editor(history: History, tools: Callable[[], list[str]]) -> Editor:
    """Line editing, history search, completion. Never asks the terminal a question: a serial line may not
    answer."""
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History as PromptHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import ColorDepth
    from prompt_toolkit.shortcuts import CompleteStyle, PromptSession

    from clawos.clawsh.completion import complete

    class Kept(PromptHistory):
        def load_history_strings(self) -> Iterable[str]:
            return reversed(history.load())

        def store_string(self, string: str) -> None:
            history.append(string)

    class Tab(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
            length, offers = complete(document.text_before_cursor, tools)
            for offer in offers:
                yield Completion(offer, start_position=-length)

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        history=Kept(),
        completer=Tab(),
        complete_while_typing=False,  # a list that follows every key is unbearable at 9600 baud
        complete_style=CompleteStyle.READLINE_LIKE,
        complete_in_thread=False,
        key_bindings=keys,
        color_depth=ColorDepth.DEPTH_1_BIT,
        output=_output(),
    )

    class RichEditor:
        def read(self, prompt: str) -> str:
            return session.prompt(prompt)

    return RichEditor()


def _output() -> Vt100_Output:
    import sys

    from prompt_toolkit.output.vt100 import Vt100_Output

    output = Vt100_Output.from_pty(sys.stdout, term=os.environ.get("TERM"), enable_bell=False)
    output.enable_cpr = False  # the question where the cursor is, which a serial line may never answer
    return output
