"""Ctrl-C as something that can be waited for, instead of an exception at any line.

While work is under way SIGINT is counted and wakes whoever waits on `fd`; the work is then cancelled in good
order and the shell lives on. Outside, Python's own KeyboardInterrupt holds.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType
    from typing import Any


class Interrupts:
    """`with Interrupts() as interrupts:` … `interrupts.fd` becomes readable, `interrupts.take()` says how
    often."""

    def __init__(self) -> None:
        self._count = 0
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: Any = None
        self._wakeup_before = -1

    @property
    def fd(self) -> int:
        return self._read_fd

    def take(self) -> int:
        """How many interrupts came since the last call; resets `fd`."""
        while True:
            try:
                if not os.read(self._read_fd, 64):
                    break
            except BlockingIOError:
                break
        count, self._count = self._count, 0
        return count

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Meanwhile Python's own KeyboardInterrupt: a line editor handles Ctrl-C in its own way, and leaves
        nobody else's handler in place."""
        self._restore()
        try:
            yield
        finally:
            self._install()

    def _install(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def _restore(self) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        signal.signal(signal.SIGINT, self._before)

    def __enter__(self) -> Interrupts:
        self._install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        os.close(self._read_fd)
        os.close(self._write_fd)
