"""Carries output from the sandbox's pipe to the caller's: no sandbox ever holds a caller's descriptor.

A directory, a terminal or a socket would be a door; bytes are not. Standard input is in `feed.py`.
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
    """From the sandbox to the caller until the sandbox's end. Owns both; cancelled, it drops what is unread.

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
                while await reader.read(_CHUNK_BYTES):
                    pass  # killed it is, and does not end by itself on a broken pipe
                break
    except StreamClosed:
        pass
    except asyncio.CancelledError:
        sink.abort()  # or closing it would wait for a reader who does not read
        raise
    finally:
        watcher.cancel()  # before we close, which would look like the caller's closing
        transport.close()
        await sink.close()


async def _when_gone(sink: Writer, stop: Callable[[], None]) -> None:
    await sink.gone.wait()
    stop()
