"""Carries bytes between a caller's pipe and the sandbox's: no sandbox ever holds a caller's descriptor.

A directory, a terminal or a socket as standard input would be a door; bytes are not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

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
    """From the sandbox to the caller until the sandbox's end. Owns both.

    Calls `stop` when the budget is spent or the caller closed his end: both end the call.
    """
    reader, transport = await _read_pipe(source)
    watcher = asyncio.create_task(_when_gone(sink, stop))
    try:
        while data := await reader.read(_CHUNK_BYTES):
            if allowed := budget.take(data):
                await sink.send(allowed)
            if budget.exceeded:
                stop()
                break
    except StreamClosed:
        pass
    finally:
        watcher.cancel()  # before we close, which would look like the caller's closing
        transport.close()
        await sink.close()


async def _when_gone(sink: Writer, stop: Callable[[], None]) -> None:
    await sink.gone.wait()
    stop()


async def standard_input(source: int, sink: Writer) -> None:
    """From the caller to the sandbox until either ends. Owns both."""
    try:
        while data := await _read(source):
            await sink.send(data)
    except (StreamClosed, OSError):
        pass  # the program does not read any more, or the caller's file cannot be read: both are an end
    finally:
        os.close(source)
        await sink.close()


async def _read(fd: int) -> bytes:
    """Read without O_NONBLOCK, which would cling to the caller's own end of the file too."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(fd, _set, ready)
    except PermissionError:  # a regular file or /dev/null: not for epoll, and never blocks for long
        return await loop.run_in_executor(None, os.read, fd, _CHUNK_BYTES)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
    return os.read(fd, _CHUNK_BYTES)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
