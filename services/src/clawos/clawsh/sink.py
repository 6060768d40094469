"""Where clawsh writes: a descriptor that knows whether a terminal is behind it.

What clawsh says itself is written as it is. What came from a model or a tool goes through `content`, which
makes it harmless for a terminal and leaves it byte for byte alone for a pipe or a file.
"""

from __future__ import annotations

import os

from clawos.clawsh.clean import Cleaner

STYLES = {"tool": "36", "dim": "2", "bad": "31", "ask": "1;33", "strong": "1"}


class ReaderGone(Exception):
    """Nobody reads our output any more; as under SIGPIPE the program ends."""


def is_dumb() -> bool:
    return os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")


class Sink:
    """One output stream."""

    def __init__(self, fd: int, terminal: bool | None = None) -> None:
        self.fd = fd
        self.terminal = os.isatty(fd) if terminal is None else terminal
        self.styled = self.terminal and not is_dumb() and not os.environ.get("NO_COLOR")
        self.at_line_start = True

    def write(self, text: str) -> None:
        """Write words of our own."""
        if text:
            self.at_line_start = text.endswith("\n")
            self.write_bytes(text.encode(errors="replace"))

    def line(self, text: str, style: str | None = None) -> None:
        """A line of our own, on a line of its own."""
        self.end_line()
        self.write((self.style(text, style) if style else text) + "\n")

    def end_line(self) -> None:
        if not self.at_line_start:
            self.write("\n")

    def style(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.styled else text

    def write_bytes(self, data: bytes) -> None:
        """Write all of it. Raises ReaderGone."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.fd, view) :]
            except BrokenPipeError:
                raise ReaderGone from None
            except BlockingIOError:  # a terminal or pipe that somebody else set to non-blocking
                _wait_writable(self.fd)

    def content(self) -> Content:
        """A stream of foreign text to this sink."""
        return Content(self)


class Content:
    """Foreign text on its way to a sink, in pieces; on a terminal cleaned, and indented if so wished."""

    def __init__(self, sink: Sink, indent: str = "") -> None:
        self._sink = sink
        self._cleaner = Cleaner()
        self._indent = indent if sink.terminal else ""
        self.lines = 0

    def write(self, text: str) -> None:
        if self._sink.terminal:
            text = self._cleaner.feed(text)
        self.lines += text.count("\n")
        if self._indent and text:
            start = self._indent if self._sink.at_line_start else ""
            ending = "\n" if text.endswith("\n") else ""
            text = start + text.removesuffix("\n").replace("\n", "\n" + self._indent) + ending
        self._sink.write(text)


def _wait_writable(fd: int) -> None:
    import select

    select.select([], [fd], [])
