"""The two services that the agent calls, as interfaces with their real signatures.

The model follows a script; the isolator runs nothing, but hands out real pipes with a script's output.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clawos.core.bus import Fd, Interface, Str, method
from clawos.core.errors import ClawError
from clawos.core.stream import StreamClosed, Writer

SINGLE_SHOT = "clawos-tags-1"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def tool_call(tool: str, **args: Any) -> dict[str, Any]:
    return {"type": "tool_call", "tool": tool, "args": args}


HANG: dict[str, Any] = {"type": "hang"}
"""In a script: say no more until cancelled."""
DIE: dict[str, Any] = {"type": "die"}
"""In a script: end the stream without its last event."""


class FakeInference(Interface):
    """Answers each `Chat` with the next part of its script."""

    def __init__(
        self, script: Sequence[Sequence[dict[str, Any]] | ClawError] = (), dialect: str = "chatml"
    ) -> None:
        super().__init__()
        self.script = list(script)
        self.dialect = dialect
        self.requests: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.ended = asyncio.Event()
        self._stops: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @method
    async def chat(self, request: Str) -> tuple[Str, Fd]:
        self.requests.append(json.loads(request))
        part = self.script.pop(0)
        if isinstance(part, ClawError):
            raise part
        number = f"g{len(self.requests)}"
        self._stops[number] = asyncio.Event()
        fd, writer = await Writer.open()
        task = asyncio.create_task(self._play(part, number, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return number, fd

    @method
    async def cancel(self, id: Str) -> None:  # noqa: A002 # the contract's name
        self.cancelled.append(id)
        if id in self._stops:
            self._stops[id].set()

    @method
    async def status(self) -> Str:
        status = {
            "model": "fake",
            "loaded": True,
            "dialect": self.dialect,
            "vocabulary": 8,
            "context_tokens": 512,
        }
        return json.dumps(status | {"resident_bytes": 1, "cpu_variant": "none"})

    async def _play(self, part: Sequence[dict[str, Any]], number: str, writer: Writer) -> None:
        finish = "stop"
        try:
            for event in part:
                if event is HANG:
                    stop = asyncio.create_task(self._stops[number].wait())
                    gone = asyncio.create_task(writer.gone.wait())
                    await asyncio.wait([stop, gone], return_when=asyncio.FIRST_COMPLETED)
                    stop.cancel()
                    gone.cancel()
                    finish = "cancelled"
                    break
                if event is DIE:
                    return
                if event["type"] == "tool_call":
                    finish = "tool_calls"
                await writer.send_json(event)
            done = {
                "type": "done",
                "finish": finish,
                "model": "fake",
                "prompt_tokens": 10,
                "completion_tokens": 5,
            }
            await writer.send_json(
                done | {"load_s": 0.0, "prompt_s": 0.1, "completion_s": 0.1, "grammar_s": 0.0}
            )
        except StreamClosed:
            pass
        finally:
            await writer.close()
            self.ended.set()


@dataclass
class Script:
    """What one sandbox does."""

    stdout: Sequence[bytes] = ()
    stderr: Sequence[bytes] = ()
    exit_code: int | None = 0
    signal: int | None = None
    limit: str | None = None
    hang: bool = False
    dies: bool = False
    gate: asyncio.Event | None = None
    """Waited for before each piece of output but the first."""


@dataclass
class Ran:
    """What the isolator was asked for."""

    spec: dict[str, Any]
    stdin: bytes | None


@dataclass
class _Run:
    writers: list[Writer]
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class FakeIsolator(Interface):
    """Plays the next script for each `Run`; with none left, a call prints its argv and succeeds."""

    def __init__(self, scripts: Sequence[Script | ClawError] = ()) -> None:
        super().__init__()
        self.scripts = list(scripts)
        self.ran: list[Ran] = []
        self.killed: list[str] = []
        self.started = asyncio.Event()
        self.over = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._runs: dict[str, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @method
    async def run(self, spec: Str, stdin: Fd) -> tuple[Str, Fd, Fd, Fd]:
        parsed = json.loads(spec)
        with os.fdopen(stdin, "rb") as source:
            self.ran.append(Ran(parsed, source.read() if parsed["stdin"] else None))
        script = self.scripts.pop(0) if self.scripts else Script([" ".join(parsed["argv"]).encode() + b"\n"])
        if isinstance(script, ClawError):
            raise script
        (out_fd, out), (err_fd, err), (result_fd, result) = [await Writer.open() for _ in range(3)]
        number = f"r{len(self.ran)}"
        self._runs[number] = _Run([out, err, result])
        task = asyncio.create_task(self._play(script, number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return number, out_fd, err_fd, result_fd

    @method
    async def cancel(self, id: Str) -> None:  # noqa: A002 # the contract's name
        self.killed.append(id)
        self.cancelled.set()
        if id in self._runs:
            self._runs[id].stop.set()

    @method
    async def plan(self, spec: Str) -> Str:
        return spec

    @method
    async def status(self) -> Str:
        return json.dumps(
            {"running": len(self._runs), "queued": 0, "landlock_abi": 7, "namespaces": [], "cgroup": ""}
        )

    async def _play(self, script: Script, number: str) -> None:
        run = self._runs[number]
        out, err, result = run.writers
        self.started.set()
        try:
            for i, piece in enumerate(script.stdout):
                if script.gate and i:
                    await script.gate.wait()
                await out.send(piece)
            for piece in script.stderr:
                await err.send(piece)
            if script.hang:
                stop = asyncio.create_task(run.stop.wait())
                gone = asyncio.create_task(result.gone.wait())
                await asyncio.wait([stop, gone], return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
                gone.cancel()
            await out.close()
            await err.close()
            if not script.dies:
                limit = "cancelled" if run.stop.is_set() else script.limit
                ended = {
                    "exit_code": script.exit_code,
                    "signal": script.signal,
                    "limit": limit,
                    "wall_s": 0.25,
                }
                await result.send_json(ended | {"cpu_s": 0.1, "peak_memory_bytes": 4096, "landlock_abi": 7})
        except StreamClosed:
            pass
        finally:
            for writer in run.writers:
                await writer.close()
            del self._runs[number]
            self.over.set()
