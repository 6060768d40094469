"""Carries output from the sandbox's pipe to the caller's, or into the next sandbox's: none ever holds a
descriptor of the caller's or of another one.

A directory, a terminal or a socket would be a door; bytes are not. Standard input is in `feed.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from clawos.core.stream import StreamClosed, Writer

_CHUNK_BYTES = 65536


class Budget:
    """How many bytes of output are left to a call, both streams together."""

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self.exceeded = False

    def take(self, data: bytes) -> bytes:
        """As much of data as may still pass."""
        allowed = data[: self._left]
        self._left -= len(allowed)
        self.exceeded = self.exceeded or len(allowed) < len(data)
        return allowed


async def _read_pipe(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    return reader, transport


async def output(source: int, sink: Writer, budget: Budget, stop: Callable[[], None]) -> None:
    """From the sandbox to the caller until the sandbox's end. Owns both; cancelled, it drops what is unread.

    Calls `stop` when the budget is spent or the caller closed his end: both end the call.
    """
    reader, transport = await _read_pipe(source)
    watcher = asyncio.create_task(_when_gone(sink, stop))
    async with _closing(watcher, transport, sink):
        await _copy(reader, sink, budget, stop)


async def link(
    source: int,
    sink: Writer,
    budget: Budget,
    stop: Callable[[], None],
    cut: Callable[[], None],
    whole: Callable[[], Awaitable[bool]],
) -> None:
    """From one sandbox into the next one's standard input. Owns both.

    Calls `stop` when the budget is spent, and `cut` when the next one closed its end: then the first meets a
    broken pipe, as in a shell. The end is passed on once `whole` says that it is one: what a program wrote
    until it was killed must not be taken for all.
    """
    reader, transport = await _read_pipe(source)

    def close() -> None:
        cut()
        transport.close()

    watcher = asyncio.create_task(_when_gone(sink, close))
    async with _closing(watcher, transport, sink):
        try:
            await _copy(reader, sink, budget, stop)
        except StreamClosed:
            cut()
            raise
        if not await whole():
            await sink.gone.wait()  # it is being killed, too


async def _copy(reader: asyncio.StreamReader, sink: Writer, budget: Budget, stop: Callable[[], None]) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        if allowed := budget.take(data):
            await sink.send(allowed)
        if budget.exceeded:
            stop()
            while await reader.read(_CHUNK_BYTES):
                pass  # killed it is, and does not end by itself on a broken pipe
            break


@contextlib.asynccontextmanager
async def _closing(
    watcher: asyncio.Task[None], transport: asyncio.ReadTransport, sink: Writer
) -> AsyncIterator[None]:
    try:
        yield
    except StreamClosed:
        pass
    except asyncio.CancelledError:
        sink.abort()  # or closing it would wait for a reader who does not read
        raise
    finally:
        watcher.cancel()  # before we close, which would look like the reader's closing
        transport.close()
        await sink.close()


async def _when_gone(sink: Writer, stop: Callable[[], None]) -> None:
    await sink.gone.wait()
    stop()
