"""A terminal with a program at it: what a person would type and see."""

from __future__ import annotations

import getpass
import os
import pty
import select
import signal
import socket
import time

TIMEOUT_S = 30
PROMPT = f"{getpass.getuser()}@{socket.gethostname().partition('.')[0]}>"


class Terminal:
    """Runs a program as the leader of a new terminal's session."""

    def __init__(self, argv: list[str], environment: dict[str, str], argv0: str | None = None) -> None:
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            try:
                os.execve(argv[0], [argv0 or argv[0], *argv[1:]], environment)
            finally:
                os._exit(127)
        self.seen = b""
        self._read_up_to = 0
        self._code: int | None = None

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def expect(self, text: str, timeout_s: float = TIMEOUT_S) -> str:
        """Wait until this appears, after what was expected before. Returns what stood in between."""
        deadline = time.monotonic() + timeout_s
        wanted = text.encode()
        while (found := self.seen.find(wanted, self._read_up_to)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"never saw {text!r}, but {self.seen[self._read_up_to :]!r}")
        between = self.seen[self._read_up_to : found].decode(errors="replace")
        self._read_up_to = found + len(wanted)
        return between

    def prompt(self) -> Terminal:
        """Wait for the prompt. The blank after it may be a movement of the cursor."""
        self.expect(PROMPT)
        return self

    def skip(self) -> None:
        """What is seen so far is not what is waited for: line editors paint a line more than once."""
        self.stays_silent("\0", 0.3)
        self._read_up_to = len(self.seen)

    def stays_silent(self, text: str, for_s: float) -> None:
        """This does not appear within the time."""
        deadline = time.monotonic() + for_s
        while self._read(deadline):
            pass
        assert text.encode() not in self.seen[self._read_up_to :]

    def exit_code(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for the end of the program. Returns its exit code, or minus the signal."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        while self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise AssertionError(f"it did not end; last seen {self.seen[-300:]!r}")
            else:
                time.sleep(0.02)
        return self._code

    def hang_up(self) -> None:
        """The line is gone, as when a modem or an ssh client is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        self.hang_up()
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _read(self, deadline: float) -> bool:
        if self._fd < 0:
            return False
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the program closed its side
            return False
        self.seen += data
        return bool(data)


QUESTION = "[e]dit: "


def settled() -> None:
    """The moment within which an answer does not count yet."""
    time.sleep(0.5)


def answer(terminal: Terminal, text: str) -> None:
    """Answer a question once that counts."""
    terminal.expect(QUESTION)
    settled()
    terminal.type(text + "\r")
