"""Standard input: from a caller's descriptor to the sandbox's pipe, in a thread of its own.

The descriptor is foreign: whoever else holds it decides when a read returns. One that poll(2) calls ready
still blocks when another reader is faster, or for as long as a terminal's VMIN and VTIME say; O_NONBLOCK
would cling to the caller's own end too. So the event loop never touches it, and a signal ends the thread's
read when the call ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import select
import signal
import threading
import time

_CHUNK_BYTES = 65536
# Ignored by default and by everybody else; with a handler it interrupts what blocks.
_WAKE = signal.SIGURG
_FIRST_PAUSE_S = 0.001
_LAST_PAUSE_S = 1.0
# A descriptor that says it is ready and is not must not keep a processor busy.
_NOT_READY_PAUSE_S = 0.01

# Not os.read and os.write: those begin anew when a signal interrupts them.
_libc = ctypes.CDLL(None, use_errno=True)
for _call in (_libc.read, _libc.write):
    _call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    _call.restype = ctypes.c_ssize_t


class Feed:
    """Carries a caller's bytes until either end closes or `stop`."""

    def __init__(self, source: int, sink: int, wake: int) -> None:
        self._source = source
        self._sink = sink
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._go = threading.Event()
        self._stopping = False
        self._closed = False
        self._lock = threading.Lock()
        """Held where the thread ends and where it is signalled: one that is gone may not be."""
        # A daemon, for a file whose server never answers holds a read that nothing interrupts.
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    @classmethod
    def open(cls, source: int) -> tuple[int, Feed]:
        """Returns the end to read from, the caller's to close, and a feed that waits for `go`.

        The source stays the giver's. Raises OSError, or RuntimeError when there can be no more threads.
        """
        if signal.getsignal(_WAKE) is signal.SIG_DFL:
            signal.signal(_WAKE, lambda _number, _frame: None)
        with contextlib.ExitStack() as on_failure:

            def ours(fd: int) -> int:
                on_failure.callback(os.close, fd)
                return fd

            read_end, write_end = map(ours, os.pipe2(os.O_CLOEXEC))
            feed = cls(ours(os.dup(source)), write_end, ours(os.eventfd(0, os.EFD_CLOEXEC)))
            feed._thread.start()
            on_failure.pop_all()
        return read_end, feed

    def go(self) -> None:
        """Nothing is read before the program runs: a call that is refused takes no byte."""
        self._go.set()

    async def stop(self) -> None:
        """End it, and wait until it holds no descriptor any more."""
        self._stopping = True
        self._go.set()
        pause_s = _FIRST_PAUSE_S
        while not self._over.is_set():
            self._interrupt()  # again and again: a signal just before the read is lost
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._over.wait()
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)

    def _interrupt(self) -> None:
        with self._lock:
            if not self._closed and self._thread.ident is not None:
                os.eventfd_write(self._wake, 1)
                signal.pthread_kill(self._thread.ident, _WAKE)

    def _run(self) -> None:
        self._go.wait()
        buffer = ctypes.create_string_buffer(_CHUNK_BYTES)
        try:
            while count := self._read(buffer):
                self._write(buffer, count)
        except OSError:
            pass  # the program does not read any more, or the caller's file cannot be read: both are an end
        finally:
            with self._lock:
                self._closed = True
                for fd in (self._source, self._sink, self._wake):
                    os.close(fd)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._over.set)

    def _read(self, buffer: ctypes.Array[ctypes.c_char]) -> int:
        """How many bytes there are; 0 at the end."""
        while not self._stopping:
            count: int = _libc.read(self._source, buffer, _CHUNK_BYTES)
            if count >= 0:
                return count
            self._try_again(self._source, select.POLLIN)
        return 0

    def _write(self, buffer: ctypes.Array[ctypes.c_char], count: int) -> None:
        written = 0
        while written < count and not self._stopping:
            more: int = _libc.write(self._sink, ctypes.byref(buffer, written), count - written)
            if more >= 0:
                written += more
            else:
                self._try_again(self._sink, select.POLLOUT)

    def _try_again(self, fd: int, event: int) -> None:
        """Return when it may be tried again. Raises OSError."""
        error = ctypes.get_errno()
        if error == errno.EINTR:
            return
        if error != errno.EAGAIN:
            raise OSError(error, os.strerror(error))
        either = select.poll()
        either.register(fd, event)
        either.register(self._wake, select.POLLIN)
        either.poll()
        time.sleep(_NOT_READY_PAUSE_S)
