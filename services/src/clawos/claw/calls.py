"""`claw sandbox run`: calls of tools, one, several side by side, or as a chain. Only root may ask."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from clawos.claw import output, sandbox
from clawos.claw.services import Machine, Started
from clawos.core.errors import Unavailable

NOT_RUN = 125
"""As env(1) and timeout(1) have it: none of the tool's own exit codes."""
_TIMED_OUT = 124
_KILLED = 137
_READER_GONE = 141
_CHUNK_BYTES = 65536


@dataclass(frozen=True)
class Call:
    """A call that is over, and what was kept of its output. stdout None: another call read it."""

    tool: str
    stdout: str | None
    stderr: str
    told: dict[str, Any]

    @property
    def exit_code(self) -> int:
        if self.told["type"] == "error":
            return NOT_RUN
        if self.told["limit"] == "wall":
            return _TIMED_OUT
        if self.told["signal"]:
            return 128 + int(self.told["signal"])
        return self.told["exit_code"] or (_KILLED if self.told["limit"] else 0)

    def as_json(self) -> dict[str, Any]:
        told = {key: value for key, value in self.told.items() if key not in ("type", "call", "id")}
        refused = self.told["type"] == "error"
        return {
            "tool": self.tool,
            "id": self.told["id"],
            "stdout": self.stdout,
            "stderr": self.stderr,
            "result": None if refused else told,
            "error": told if refused else None,
        }

    def sentence(self) -> str:
        """How it failed."""
        if self.told["type"] == "error":
            return str(self.told["message"])
        if self.told["limit"]:
            return f"{self.tool} met a limit: {self.told['limit']}"
        if self.told["signal"]:
            return f"{self.tool} ended by signal {self.told['signal']}"
        return f"{self.tool} ended with exit code {self.told['exit_code']}"


@dataclass(frozen=True)
class Run:
    """Calls that are over. `failed` is the place of the first that failed."""

    how: str
    calls: list[Call]
    failed: int | None
    wall_s: float
    reader_gone: bool

    @property
    def exit_code(self) -> int:
        if self.reader_gone:
            return _READER_GONE
        return 0 if self.failed is None else self.calls[self.failed].exit_code

    def as_json(self) -> dict[str, Any]:
        calls = [call.as_json() for call in self.calls]
        if len(calls) == 1:
            return calls[0]
        return {"how": self.how, "calls": calls, "failed": self.failed, "wall_s": self.wall_s}


def run(
    machine: Machine,
    how: str,
    wanted: Sequence[tuple[str, Sequence[str]]],
    *,
    stdin: bool,
    yes: bool,
    keep: bool,
) -> Run:
    """Run tools to their end. What they write goes to our own streams, or is kept. Raises ClawError."""
    specifications = [sandbox.runnable(machine, tool, values, yes=yes) for tool, values in wanted]
    calls = [
        {**specification, "stdin": how == "chain" if index else stdin}
        for index, specification in enumerate(specifications)
    ]
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        request = json.dumps({"how": how, "calls": calls})
        started = machine.run_group(request, 0 if stdin else nothing)
    finally:
        os.close(nothing)
    tools = [tool for tool, _ in wanted]
    sinks = [_Kept() for _ in (*started.stdout, *started.stderr)] if keep else _sinks(how, tools, started)
    readers = [_Reader(fd, sink) for fd, sink in zip((*started.stdout, *started.stderr), sinks, strict=True)]
    told, done = _results(started.result, len(tools))
    for reader in readers:
        reader.join()
    outputs, errors = sinks[: len(started.stdout)], sinks[len(started.stdout) :]
    kept = [*[None] * (len(tools) - len(outputs)), *(sink.text() for sink in outputs)]
    return Run(
        how,
        [
            Call(tool, stdout, stderr.text(), line)
            for tool, stdout, stderr, line in zip(tools, kept, errors, told, strict=True)
        ],
        done["failed"],
        done["wall_s"],
        any(reader.gone for reader in readers),
    )


def show(ended: Run) -> None:
    """Say what the tools' own words do not: which call failed, and which limit it met."""
    failed = None if ended.failed is None else ended.calls[ended.failed]
    if failed and not ended.reader_gone and (len(ended.calls) > 1 or failed.told.get("limit", True)):
        print(f"claw: {output.harmless(failed.sentence())}", file=sys.stderr)


class _Sink(Protocol):
    def take(self, data: bytes) -> None: ...

    def end(self) -> None: ...

    def text(self) -> str: ...


class _Kept:
    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> None:
        self._data += data

    def end(self) -> None:
        pass

    def text(self) -> str:
        return self._data.decode(errors="replace")


class _Through:
    """Writes bytes as they come."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def take(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def end(self) -> None:
        pass

    def text(self) -> str:
        return ""


class _Lines(_Through):
    """Writes whole lines, each with the call's name before it."""

    def __init__(self, fd: int, name: str, lock: threading.Lock) -> None:
        super().__init__(fd)
        self._name = name.encode()
        self._lock = lock
        self._rest = b""

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            with self._lock:
                super().take(b"".join(self._name + line + b"\n" for line in lines))

    def end(self) -> None:
        if self._rest:
            self.take(b"\n")


def _sinks(how: str, tools: Sequence[str], started: Started) -> Sequence[_Sink]:
    if how == "chain" or len(tools) == 1:
        return [_Through(1) for _ in started.stdout] + [_Through(2) for _ in started.stderr]
    lock = threading.Lock()
    return [
        _Lines(fd, f"{index} {output.harmless(tool)}: ", lock)
        for fd in (1, 2)
        for index, tool in enumerate(tools)
    ]


class _Reader:
    """Takes one stream to its end, in a thread of its own: no stream is held up by another."""

    def __init__(self, fd: int, sink: _Sink) -> None:
        self.gone = False
        """Nobody reads what it writes."""
        self._fd = fd
        self._sink = sink
        # A daemon: Ctrl-C does not wait for a tool that says nothing.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            while data := os.read(self._fd, _CHUNK_BYTES):
                self._sink.take(data)
            self._sink.end()
        except BrokenPipeError:
            self.gone = True
        finally:
            os.close(self._fd)  # before the stream's end, this ends the call


def _results(fd: int, calls: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What is told of each call, in their order, and of all."""
    with os.fdopen(fd, "rb") as stream:
        lines = [json.loads(line) for line in stream]
    told = {line["call"]: line for line in lines if line["type"] != "done"}
    if len(told) != calls or lines[-1]["type"] != "done":
        raise Unavailable(
            "the isolator ended before the calls did",
            "see 'journalctl -u clawos-isolator -n 20'",
            unit="clawos-isolator",
        )
    return [told[index] for index in range(calls)], lines[-1]
