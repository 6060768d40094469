"""A file of Python, run both ways: by a new Python, and by a copy of the zygote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from clawos.isolator import backend as backends
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.filters import load as load_filters
from clawos.isolator.plan import Plan
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Outcome, Running, Streams
from clawos.isolator.python.plan import PYTHON
from clawos.isolator.python.zygote import WithZygote, command
from clawos.isolator.spec import parse

from .conftest import POLICIES, read_all, spec_text
from .test_sandbox import leftovers

TOOLS = Path("/usr/lib/clawos/tools-test")
COLD, COPY = "a new Python", "a copy"
# The machine may be busy.
READY_S = 30
ZYGOTE = command(Config())[len(PYTHON)]
ADDRESS = re.compile(rb"0x[0-9a-f]{6,}")


@dataclass(frozen=True)
class Ended:
    stdout: bytes
    stderr: bytes
    exit_code: int | None
    signal: int | None

    def json(self) -> Any:
        assert self.exit_code == 0, self
        return json.loads(self.stdout)


class Pythons:
    """Both ways to start a file of Python, each with a sandbox of its own."""

    def __init__(self, config: Config, runner: asyncio.Runner) -> None:
        self.config = config
        self.planner = Planner(config, quotas.load(config.quotas), load_filters(config.filters))
        self._runner = runner
        self.sandboxes = {
            COLD: self._sandbox(msgspec.structs.replace(config, zygote_calls=0)),
            COPY: self._sandbox(config),
        }
        self.outcome: Outcome

    @property
    def zygote(self) -> WithZygote:
        return self.sandboxes[COPY]

    def run(self, way: str, file: Path, *arguments: str, stdin: str | None = None, **spec: Any) -> Ended:
        """Run a file to its end. From a copy, really: where none is ready it is waited for."""
        return self._runner.run(self._run(way, file, *arguments, stdin=stdin, **spec))

    def both(self, file: Path, *arguments: str, **given: Any) -> tuple[Ended, Ended]:
        return self.run(COLD, file, *arguments, **given), self.run(COPY, file, *arguments, **given)

    def close(self) -> None:
        for sandbox in self.sandboxes.values():
            self._runner.run(sandbox.close())

    async def _ready(self) -> None:
        async with asyncio.timeout(READY_S):
            while self.zygote._zygote is None:
                await self._call(COPY, str(NOTHING), stdin=None)
                await asyncio.sleep(0.02)

    def _sandbox(self, config: Config) -> WithZygote:
        sandbox = self._runner.run(backends.choose(config, None))
        assert isinstance(sandbox, WithZygote)
        return sandbox

    async def _run(
        self, way: str, file: Path, *arguments: str, stdin: str | None = None, **spec: Any
    ) -> Ended:
        if way == COPY and not spec.get("env"):
            await self._ready()
        calls = self.zygote._calls
        ended = await self._call(way, str(file), *arguments, stdin=stdin, **spec)
        assert self.zygote._calls - calls == (way == COPY and not spec.get("env"))
        return ended

    def spawner(self) -> int:
        """The zygote's process that copies are made of: pid 1 of all its sandboxes."""
        for pid in leftovers(f"/usr/bin/python3\0-IS\0{ZYGOTE}"):
            status = Path(f"/proc/{pid}/status").read_text()
            if status.partition("NSpid:\t")[2].split("\n")[0].split()[1:] == ["1"]:
                return pid
        raise AssertionError("there is no zygote")

    def start_copy(self, plan: Plan, *, is_ready: bool = False) -> Running:
        """Begin a plan as a copy, without what it puts out."""
        if not is_ready:
            self.run(COPY, NOTHING)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            return self._runner.run(self.zygote.start("1", plan, Streams(null, null, null)))
        finally:
            os.close(null)

    @contextlib.contextmanager
    def started(self, file: Path, **spec: Any) -> Iterator[int]:
        """While a file runs, as a copy: its process."""
        text = spec_text(str(file), runtime="python", seccomp="python", **spec)
        running = self.start_copy(self.planner.plan(parse(text)))
        try:
            yield _named(file)
        finally:

            async def end() -> None:
                running.kill()
                await running.wait()

            self._runner.run(end())

    async def _call(self, way: str, *argv: str, stdin: str | None, **spec: Any) -> Ended:
        text = spec_text(*argv, **{"runtime": "python", "seccomp": "python", **spec})
        plan = self.planner.plan(parse(text))
        read_ends, write_ends = zip(*(os.pipe() for _ in range(3)), strict=True)
        null = os.open(os.devnull, os.O_RDONLY)
        streams = Streams(null if stdin is None else read_ends[0], write_ends[1], write_ends[2])
        running = await self.sandboxes[way].start("1", plan, streams)
        for fd in (null, read_ends[0], *write_ends[1:]):
            os.close(fd)
        with os.fdopen(write_ends[0], "wb") as file:
            file.write((stdin or "").encode())
        stdout, stderr = await asyncio.gather(*(asyncio.to_thread(read_all, fd) for fd in read_ends[1:]))
        self.outcome = await running.wait()
        stdout, stderr = (ADDRESS.sub(b"0x", text) for text in (stdout, stderr))
        return Ended(stdout, stderr, self.outcome.exit_code, self.outcome.signal)


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + READY_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _named(file: Path) -> int:
    """The process that runs a file. It takes its name just after its start."""
    command_line = f"/usr/bin/python3\0-IS\0{file}"
    wait_until(lambda: leftovers(command_line))
    return leftovers(command_line)[0]


NOTHING = TOOLS / "nothing.py"


@contextlib.contextmanager
def settings(launcher: Path, zygote: Path, filters: Path, directory: Path) -> Iterator[Config]:
    """With a directory that files of Python may be in; below /usr, as the image has it."""
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    TOOLS.mkdir(parents=True, exist_ok=True)
    NOTHING.write_text("")
    yield Config(
        launcher=launcher,
        zygote=zygote,
        filters=filters,
        quotas=POLICIES / "quotas.toml",
        home=directory / "home",
        python=(str(TOOLS),),
        zygote_calls=100_000,
        zygote_s=3600,
        run_as={"clawos-sandbox": ("*",), "clawos-units": ("*",)},
    )
    shutil.rmtree(TOOLS)


def written(source: str) -> Path:
    """A file of Python with this text."""
    file = TOOLS / "tool.py"
    text = textwrap.dedent(source)
    # What a program says of itself: "\x00" in it is the byte, and the coding that it names is its own.
    coding = "latin-1" if "latin-1" in text else "utf-8"
    file.write_bytes(text.replace("\\x00", "\0").encode(coding))
    file.chmod(0o644)
    return file
