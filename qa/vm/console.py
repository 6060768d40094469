"""A person at the serial console: wait for words, type words."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

from qa.vm.machine import CONTROL, VmError, read_some


class Console:
    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._text = ""

    def close(self) -> None:
        self._socket.close()

    def expect(self, pattern: str, timeout_s: float) -> str:
        """Wait until `pattern` appears; returns all text up to its end and forgets it. Raises VmError."""
        deadline = time.monotonic() + timeout_s
        while True:
            plain = CONTROL.sub("", self._text)
            if found := re.search(pattern, plain):
                self._text = plain[found.end() :]
                return plain[: found.end()]
            try:
                data = read_some(self._socket, deadline)
            except TimeoutError:
                raise VmError(f"the console never showed {pattern!r}; last words: {plain[-800:]!r}") from None
            if not data:
                raise VmError(f"the console closed before {pattern!r}; last words: {plain[-800:]!r}")
            self._text += data.decode(errors="replace")

    def type(self, text: str, enter: bool = True) -> None:
        self._socket.sendall(text.encode() + (b"\r" if enter else b""))
