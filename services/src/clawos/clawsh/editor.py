"""Reading a line from a person: prompt_toolkit on a terminal that can, plain lines on one that cannot.

prompt_toolkit is imported here and nowhere else, and only when a person sits at a terminal.
"""

from __future__ import annotations

import os
import select

from clawos.clawsh.clean import UNSEEN, visible
from clawos.clawsh.history import History
from clawos.clawsh.interrupt import Interrupts
from clawos.clawsh.sink import Sink, is_dumb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import Output

    class Editor(Protocol):
        """Reads one line. Raises KeyboardInterrupt on Ctrl-C and EOFError on Ctrl-D."""

        def read(self, prompt: str) -> str: ...

    class ValueEditor(Protocol):
        """Edits one value after another. Raises KeyboardInterrupt on Ctrl-C and EOFError on Ctrl-D."""

        def read(self, name: str, value: str) -> str: ...

        def close(self) -> None: ...


def make_editor(screen: Sink, history: History, tools: Callable[[], list[str]]) -> Editor:
    return PlainEditor(screen, history) if is_dumb() else rich_editor(screen, history, tools)


def make_value_editor(screen: Sink) -> ValueEditor:
    return PlainValueEditor(screen) if is_dumb() else rich_value_editor(screen)


class PlainEditor:
    """The terminal's own line mode: for TERM=dumb, where every escape sequence would be litter."""

    def __init__(self, screen: Sink, history: History) -> None:
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
        self._history.append(text)
        return text


class PlainValueEditor:
    """Shows the value; Enter alone keeps it."""

    def __init__(self, screen: Sink) -> None:
        self._editor = PlainEditor(screen, History(None))

    def read(self, name: str, value: str) -> str:
        return self._editor.read(f"{name} [{visible(value)}]: ") or value

    def close(self) -> None:
        """What was typed ahead goes with the editor."""


def rich_value_editor(screen: Sink) -> ValueEditor:
    """The line editor with the value in it. It keeps no history: a value may be a secret."""
    from bisect import bisect_right

    from prompt_toolkit.history import DummyHistory
    from prompt_toolkit.input.typeahead import clear_typeahead
    from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
    from prompt_toolkit.output import ColorDepth
    from prompt_toolkit.shortcuts import PromptSession

    class Unhide(Processor):
        """The value is the model's: what a terminal would hide is spelled out while it is edited, too."""

        def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
            shown: StyleAndTextTuples = []
            columns = [0]  # where the nth character of the value is shown
            for style, text, *_ in transformation_input.fragments:
                for character in text:
                    spelled = visible(character) if ord(character) in UNSEEN else character
                    shown.append((style, spelled))
                    columns.append(columns[-1] + len(spelled))
            return Transformation(
                shown,
                source_to_display=lambda at: columns[min(at, len(columns) - 1)],
                display_to_source=lambda at: bisect_right(columns, at) - 1,
            )

    session: PromptSession[str] = PromptSession(
        history=DummyHistory(),
        key_bindings=_newline_keys(),
        input_processors=[Unhide()],
        color_depth=ColorDepth.DEPTH_1_BIT,
        output=_output(screen),
    )

    class RichValueEditor:
        def read(self, name: str, value: str) -> str:
            return session.prompt(f"{name}: ", default=value)

        def close(self) -> None:
            clear_typeahead(session.app.input)  # or it would be typed at the next prompt

    return RichValueEditor()


def _output(screen: Sink) -> Output:
    import sys

    from prompt_toolkit.output.vt100 import Vt100_Output

    stream = sys.stderr if screen.fd == sys.stderr.fileno() else sys.stdout
    output = Vt100_Output.from_pty(stream, term=os.environ.get("TERM"), enable_bell=False)
    output.enable_cpr = False  # the question where the cursor is, which a serial line may never answer
    return output


def _newline_keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def rich_editor(screen: Sink, history: History, tools: Callable[[], list[str]]) -> Editor:
    """Line editing, history search, completion. Never asks the terminal a question: a serial line may not
    answer."""
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History as PromptHistory
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

    session: PromptSession[str] = PromptSession(
        history=Kept(),
        completer=Tab(),
        complete_while_typing=False,  # a list that follows every key is unbearable at 9600 baud
        complete_style=CompleteStyle.READLINE_LIKE,
        complete_in_thread=False,
        key_bindings=_newline_keys(),
        color_depth=ColorDepth.DEPTH_1_BIT,
        output=_output(screen),
    )

    class RichEditor:
        def read(self, prompt: str) -> str:
            return session.prompt(prompt)

    return RichEditor()
