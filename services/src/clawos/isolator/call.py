"""One call: its sandbox started, what became of it, and the words for the journal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from clawos.core.parse import Record
from clawos.core.stream import Writer
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.feed import Feed
from clawos.isolator.plan import Plan
from clawos.isolator.ports import Outcome, Running, Sandbox, Streams
from clawos.isolator.relay import Budget
from clawos.isolator.spec import Spec
from clawos.isolator.wasm import ends, options

log = logging.getLogger(__name__)


class Result(Record, frozen=True):
    """The line on the stream `result`."""

    exit_code: int | None
    signal: int | None
    limit: str | None
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    peak_pids: int
    out_of_memory: bool
    landlock_abi: int
    cgroup_id: int


@dataclass(frozen=True)
class Order:
    """A call that may start: who wants it, and what."""

    id: str
    owner: str
    spec: Spec
    plan: Plan
    group: str = ""
    """The id of the group that it is part of."""
    index: int = 0
    """In the group."""

    def fields(self, limit: str) -> dict[str, str]:
        """For the journal."""
        told = {"CLAWOS_CALL": self.id, "CLAWOS_TOOL": self.plan.tool, "CLAWOS_LIMIT": limit}
        return told | ({"CLAWOS_GROUP": self.group} if self.group else {})


@dataclass(frozen=True)
class Ends:
    """Where a call's output leads."""

    stdout: Writer
    stderr: Writer
    to_next: bool = False
    """stdout is another call's standard input."""


def _nothing() -> None:
    pass


@dataclass(eq=False)
class Call:
    """One call under way."""

    order: Order
    running: Running
    stdout: int
    stderr: int
    budget: Budget
    ended: asyncio.Future[Outcome | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """None when nobody can say how."""
    ended_by: str | None = None
    cut: bool = False
    """The next call did not want to read all that this one had to say."""
    when_broken: Callable[[], None] = _nothing
    started: float = field(default_factory=time.monotonic)

    @property
    def owner(self) -> str:
        return self.order.owner

    def cancel(self, by: str = "cancelled") -> None:
        self.ended_by = self.ended_by or by
        self.running.kill()

    async def abandon(self) -> None:
        """End it where nobody is to hear of it."""
        self.running.kill()
        try:
            await self.running.wait()
        finally:
            os.close(self.stdout)
            os.close(self.stderr)

    def limit(self) -> str | None:
        """Which limit ended it; a program that lived with a refused fork and ended by itself hit none."""
        if self.ended_by:
            return self.ended_by
        if self.budget.exceeded:
            return "output"
        if not self.ended.done() or not (outcome := self.ended.result()):
            return None
        if outcome.out_of_time:
            return "wall"
        if outcome.out_of_memory:
            return "memory"
        if outcome.out_of_pids and outcome.exit_code != 0:
            return "pids"
        if self.order.plan.argv[0] == options.PROGRAM and outcome.exit_code is not None:
            return ends.LIMITS.get(outcome.exit_code)
        return None

    @property
    def broken(self) -> bool:
        """Killed, by a limit or a signal, or lost: it did not say all that it had to say."""
        if self.limit():
            return True
        if not self.ended.done():
            return False
        outcome = self.ended.result()
        if outcome is None:
            return True
        return outcome.signal is not None and not (self.cut and outcome.signal == signal.SIGPIPE)

    @property
    def failed(self) -> bool:
        """A broken pipe where nobody wanted more is no failure; a shell tells its program's by exit code."""
        outcome = self.ended.result()
        if self.broken or outcome is None:
            return True
        return bool(outcome.exit_code) and not (self.cut and outcome.exit_code == 128 + signal.SIGPIPE)

    def result(self, outcome: Outcome, wall_s: float) -> Result:
        return Result(
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            limit=self.limit(),
            wall_s=round(wall_s, 6),
            cpu_s=outcome.cpu_s,
            peak_memory_bytes=outcome.peak_memory_bytes,
            peak_pids=outcome.peak_pids,
            out_of_memory=outcome.out_of_memory,
            landlock_abi=outcome.landlock_abi,
            cgroup_id=outcome.cgroup_id,
        )


async def start(
    sandbox: Sandbox, order: Order, stdin: int, undo: contextlib.AsyncExitStack
) -> tuple[Call, Feed | None]:
    """Start the program with what the order gives it of `stdin`, which stays the giver's.

    Whoever lets `undo` run ends it again. Raises SandboxRefused, OSError; call it within `refusing`.
    """
    if not order.spec.stdin:
        read_end, feed = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), None
    else:
        try:
            read_end, feed = Feed.open(stdin)
        except RuntimeError:
            raise SandboxRefused("stdin", errno.EAGAIN) from None
        undo.push_async_callback(feed.stop)
    return await start_reading(sandbox, order, read_end, undo), feed


async def start_reading(
    sandbox: Sandbox, order: Order, read_end: int, undo: contextlib.AsyncExitStack
) -> Call:
    """As `start`, with standard input from a read end, which is taken over."""
    with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as sandbox_ends:
        sandbox_ends.callback(os.close, read_end)

        def pipe() -> tuple[int, int]:
            ours, theirs = os.pipe2(os.O_CLOEXEC)
            on_failure.callback(os.close, ours)
            sandbox_ends.callback(os.close, theirs)
            return ours, theirs

        out_read, out_write = pipe()
        err_read, err_write = pipe()
        running = await sandbox.start(order.id, order.plan, Streams(read_end, out_write, err_write))
        on_failure.pop_all()
    call = Call(order, running, out_read, err_read, Budget(order.plan.quota.output_bytes))
    undo.push_async_callback(call.abandon)
    return call


async def stream(undo: contextlib.AsyncExitStack) -> tuple[int, Writer]:
    """A pipe's read end and what writes to it. Raises OSError."""
    read_end, writer = await Writer.open()
    undo.push_async_callback(writer.close)
    undo.callback(os.close, read_end)
    return read_end, writer


@contextlib.contextmanager
def refusing(order: Order) -> Iterator[None]:
    """Every refusal is an event of the journal, that of a machine without a descriptor to spare too."""
    try:
        yield
        return
    except SandboxRefused as error:
        refused = error
    except OSError as error:
        refused = SandboxRefused("streams", error.errno or errno.EIO)
    log.warning("refused: %s", refused.message, extra=order.fields(f"refused:{refused.step}"))
    raise refused.of_call(order.index, order.spec.tool) if order.group else refused from None
