"""Pipes as streams: back-pressure and cancellation."""

from __future__ import annotations

import asyncio
import os

import pytest

from clawos.core.stream import StreamClosed, Writer


async def test_slow_reader_slows_the_writer() -> None:
    fd, writer = await Writer.open()
    chunk = b"x" * 65536
    sent = 0

    async def fill() -> None:
        nonlocal sent
        while True:
            await writer.send(chunk)
            sent += 1

    task = asyncio.create_task(fill())
    await asyncio.sleep(0.1)
    assert sent < 10, "the pipe and one buffer are all that may be queued"
    task.cancel()
    os.close(fd)
    await writer.close()


async def test_closing_the_reader_ends_the_writer() -> None:
    fd, writer = await Writer.open()
    os.close(fd)
    await asyncio.wait_for(writer.gone.wait(), 5)
    with pytest.raises(StreamClosed):
        await writer.send(b"x")
