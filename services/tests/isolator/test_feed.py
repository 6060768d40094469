"""Standard input from descriptors that somebody else holds too, and that block when it suits them."""

from __future__ import annotations

import asyncio
import os
import pty
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from clawos.isolator.feed import Feed
from clawos.isolator.service import Isolator

from .conftest import finish, spec_text


def feeds() -> int:
    return sum(thread.name == "feed" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    before = feeds(), descriptors()
    yield
    await until(lambda: (feeds(), descriptors()) == before)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 # what threads do has no event
            await asyncio.sleep(0.01)


async def longest_gap_s(seconds: float) -> float:
    """How long the event loop stood still at most."""
    longest, last = 0.0, time.monotonic()
    end = last + seconds
    while last < end:
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


async def read(fd: int, count: int) -> bytes:
    return await asyncio.to_thread(os.read, fd, count)


def slow_terminal() -> tuple[int, int]:
    """It is ready with the first key, and a read waits for the rest."""
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[3] &= ~(termios.ICANON | termios.ECHO)
    attributes[6][termios.VMIN] = 255
    attributes[6][termios.VTIME] = 200  # tenths of a second
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    return master, slave


async def test_a_pipe_that_several_calls_share_freezes_nobody() -> None:
    source, write = os.pipe()
    made = [Feed.open(source) for _ in range(4)]
    for _, feed in made:
        feed.go()
    await asyncio.sleep(0.05)
    os.write(write, b"for one of them")  # poll(2) says ready to all four
    assert await longest_gap_s(0.5) < 0.3
    for read_end, feed in made:
        await asyncio.wait_for(feed.stop(), 5)
        os.close(read_end)
    os.close(source)
    os.close(write)


async def test_a_slow_terminal_freezes_nobody_and_ends_with_its_call() -> None:
    master, slave = slow_terminal()
    read_end, feed = Feed.open(slave)
    feed.go()
    os.write(master, b"k")
    assert await longest_gap_s(0.3) < 0.3
    started = time.monotonic()
    await asyncio.wait_for(feed.stop(), 5)
    assert time.monotonic() - started < 5, "and not when the terminal's clock has run out"
    for fd in (read_end, master, slave):
        os.close(fd)


async def test_bytes_arrive_and_the_end_too(tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(b"x" * 200_000)
    source = os.open(file, os.O_RDONLY)
    read_end, feed = Feed.open(source)
    os.close(source)
    feed.go()
    with os.fdopen(read_end, "rb") as whole:
        assert len(await asyncio.to_thread(whole.read)) == 200_000
    await asyncio.wait_for(feed.stop(), 5)


async def test_before_the_program_runs_no_byte_is_taken() -> None:
    source, write = os.pipe()
    os.write(write, b"kept")
    read_end, feed = Feed.open(source)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(feed.stop(), 5)
    assert os.read(source, 10) == b"kept"
    for fd in (source, write, read_end):
        os.close(fd)


async def test_what_is_not_read_stays_for_the_next() -> None:
    """An ended call's thread takes nothing any more."""
    source, write = os.pipe()
    read_end, feed = Feed.open(source)
    feed.go()
    await asyncio.sleep(0.05)
    await asyncio.wait_for(feed.stop(), 5)
    os.write(write, b"next")
    assert os.read(source, 10) == b"next"
    for fd in (source, write, read_end):
        os.close(fd)


async def test_a_program_that_does_not_read_ends_it_no_less() -> None:
    zeros = os.open("/dev/zero", os.O_RDONLY)
    read_end, feed = Feed.open(zeros)
    feed.go()
    await asyncio.sleep(0.1)
    await asyncio.wait_for(feed.stop(), 5)
    os.close(read_end)
    os.close(zeros)


async def test_a_source_that_does_not_block_is_waited_for() -> None:
    source, write = os.pipe2(os.O_NONBLOCK)
    read_end, feed = Feed.open(source)
    feed.go()
    await asyncio.sleep(0.05)
    os.write(write, b"late")
    assert await read(read_end, 10) == b"late"
    await asyncio.sleep(0.05)
    await asyncio.wait_for(feed.stop(), 5)
    for fd in (source, write, read_end):
        os.close(fd)


@pytest.mark.processes
async def test_calls_that_share_a_pipe_end_when_they_are_told(isolator: Isolator) -> None:
    source, write = os.pipe()
    calls = [
        await isolator.run(spec_text("/usr/bin/cat", stdin=True), os.dup(source), ":1.1") for _ in range(4)
    ]
    os.write(write, b"hello\n")
    assert await longest_gap_s(0.5) < 0.3
    assert feeds() == 4, "one thread a call"
    for call in calls:
        await isolator.cancel(call.id, ":1.1")
    ran = [await finish(call) for call in calls]
    assert sorted(each.stdout for each in ran) == ["", "", "", "hello\n"]
    assert isolator.status()["running"] == 0
    os.close(source)
    os.close(write)
