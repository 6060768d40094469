"""One tool call in the sandbox: output is passed on as it arrives, and a bounded part of it is kept."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from clawos.agent.ports import Sandbox
from clawos.agent.sandbox import RunResult, RunSpec
from clawos.core.errors import Unavailable
from clawos.core.stream import open_reader

CHUNK_BYTES = 16_384
CANCEL_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """A finished call and what was kept of its output."""

    result: RunResult
    output: str
    truncated: bool


class _Kept:
    """The first `limit_bytes` of the output, as text."""

    def __init__(self, limit_bytes: int) -> None:
        self._room = limit_bytes
        self._pieces: list[str] = []
        self.truncated = False

    def add(self, text: str) -> None:
        data = text.encode()
        if len(data) > self._room:
            self.truncated = True
            text = data[: self._room].decode(errors="ignore")
        self._room -= min(len(data), self._room)
        if text:
            self._pieces.append(text)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


async def run_tool(
    sandbox: Sandbox, spec: RunSpec, keep_bytes: int, on_text: Callable[[str], Awaitable[None]]
) -> Outcome:
    """Run a call to its end. Left early, by cancellation or by an error of `on_text`, it kills the sandbox.

    Bytes that are not UTF-8 are replaced; standard output and error are one text, as on a terminal.
    """
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        started = await sandbox.start(spec, nothing)
    finally:
        os.close(nothing)
    kept = _Kept(keep_bytes)

    async def pass_on(text: str) -> None:
        kept.add(text)
        await on_text(text)

    streams = await _open(started.stdout, started.stderr, started.result)
    stdout, stderr, last = streams
    tasks = [
        asyncio.create_task(_pump(stdout[0], pass_on)),
        asyncio.create_task(_pump(stderr[0], pass_on)),
    ]
    over = False
    try:
        await asyncio.gather(*tasks)
        result = _result(await last[0].readline())
        over = True
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, transport in streams:
            transport.close()
        if not over:
            await _end(sandbox, started.id)
    return Outcome(result, kept.text, kept.truncated)


async def _open(*fds: int) -> list[tuple[asyncio.StreamReader, asyncio.ReadTransport]]:
    """Readers of all descriptors, or of none and all closed."""
    opened: list[tuple[asyncio.StreamReader, asyncio.ReadTransport]] = []
    waiting = list(fds)
    try:
        while waiting:
            opened.append(await open_reader(waiting.pop(0)))
    except BaseException:
        for _, transport in opened:
            transport.close()
        for fd in waiting:
            os.close(fd)
        raise
    return opened


async def _end(sandbox: Sandbox, run: str) -> None:
    """Kill the sandbox; an isolator that does not answer must not hold us up."""
    try:
        async with asyncio.timeout(CANCEL_TIMEOUT_S):
            await sandbox.cancel(run)
    except TimeoutError:
        return


async def _pump(reader: asyncio.StreamReader, on_text: Callable[[str], Awaitable[None]]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while data := await reader.read(CHUNK_BYTES):
        if text := decoder.decode(data):
            await on_text(text)
    if text := decoder.decode(b"", final=True):
        await on_text(text)


def _result(line: bytes) -> RunResult:
    try:
        return msgspec.json.decode(line, type=RunResult)
    except msgspec.DecodeError:
        raise Unavailable(
            "the isolator ended before the call did",
            "see 'journalctl -u clawos-isolator'",
            unit="clawos-isolator",
        ) from None
