"""Streams between services: a pipe whose read end travels in a bus reply.

The pipe gives back-pressure; the reader closing its end cancels the work at the other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from clawos.core.errors import ClawError
from clawos.core.parse import to_json_line

MAX_LINE_BYTES = 4 * 1024 * 1024


class StreamClosed(ClawError):
    """The reader went away; the work it asked for is cancelled."""

    name = "StreamClosed"


class _WriteProtocol(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self.can_write = asyncio.Event()
        self.can_write.set()
        self.lost = asyncio.Event()

    def pause_writing(self) -> None:
        self.can_write.clear()

    def resume_writing(self) -> None:
        self.can_write.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio's name
        self.lost.set()
        self.can_write.set()


class Writer:
    """Write end of a stream of bytes or of JSON lines."""

    def __init__(self, transport: asyncio.WriteTransport, protocol: _WriteProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    @classmethod
    async def open(cls) -> tuple[int, Writer]:
        """Make a pipe. Returns the read end, to be sent away and then closed here, and the writer."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        pipe = os.fdopen(write_fd, "wb", buffering=0)
        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.connect_write_pipe(_WriteProtocol, pipe)
        except BaseException:
            os.close(read_fd)
            pipe.close()
            raise
        return read_fd, cls(transport, protocol)

    @property
    def gone(self) -> asyncio.Event:
        """Set once the reader has closed its end (or we ours)."""
        return self._protocol.lost

    async def send(self, data: bytes) -> None:
        """Write all of data, waiting for the reader when the pipe is full. Raises StreamClosed."""
        await self._protocol.can_write.wait()
        if self._protocol.lost.is_set():
            raise StreamClosed("the reader closed the stream")
        self._transport.write(data)

    async def send_json(self, value: Any) -> None:
        await self.send(to_json_line(value))

    async def close(self) -> None:
        """Flush and close; never raises for a reader that is gone. Cancelled, it drops what is unsent."""
        self._transport.close()
        try:
            await self._protocol.lost.wait()
        except asyncio.CancelledError:
            self._transport.abort()
            raise

    def abort(self) -> None:
        """Close at once; what the reader has not taken yet is lost."""
        if not self._protocol.lost.is_set():
            self._transport.abort()


async def open_reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Take ownership of a read end. Closing the transport tells the writer to stop."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    return reader, transport


async def read_json_lines(fd: int) -> AsyncIterator[dict[str, Any]]:
    """Yield each JSON object until the writer closes. Takes ownership of fd; leaving early closes it."""
    reader, transport = await open_reader(fd)
    try:
        while line := await reader.readline():
            yield msgspec.json.decode(line, type=dict[str, Any])
    finally:
        transport.close()
