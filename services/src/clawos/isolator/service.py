"""The isolator's behaviour: check, wait for a turn, start, relay, end, report. Knows no bus and no kernel."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from clawos.core.errors import Busy, Unavailable
from clawos.core.parse import Record
from clawos.core.stream import StreamClosed, Writer
from clawos.isolator import relay
from clawos.isolator.errors import EgressRefused, SandboxRefused, SpecInvalid
from clawos.isolator.feed import Feed
from clawos.isolator.plan import NAMESPACES, Plan
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Machine, Network, Outcome, Running, Sandbox, Streams
from clawos.isolator.queue import FairQueue
from clawos.isolator.spec import Spec, parse
from clawos.isolator.wasm import ends, options

log = logging.getLogger(__name__)

# The launcher ends a call at its wall-clock limit; should it not, we do, this much later.
_WALL_GRACE_S = 10.0
# How long the result waits for a caller who has not read the output yet.
_DRAIN_S = 5.0
# How long stopping may take; below the unit's TimeoutStopSec=.
_CLOSE_S = 20.0


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


@dataclass
class Call:
    """One call under way."""

    id: str
    owner: str
    user: int
    plan: Plan
    running: Running
    result: Writer
    budget: relay.Budget
    cancelled: bool = False
    started: float = field(default_factory=time.monotonic)

    def cancel(self) -> None:
        self.cancelled = True
        self.running.kill()


@dataclass(frozen=True)
class Handle:
    """What the caller gets: the call's id and three read ends, his to close."""

    id: str
    stdout: int
    stderr: int
    result: int


class Isolator:
    def __init__(
        self,
        planner: Planner,
        sandbox: Sandbox,
        machine: Machine,
        queue: FairQueue,
        drain_s: float,
        network: Network | None = None,
    ) -> None:
        """`network` None: there is nobody who links a sandbox to the egress service."""
        self._planner = planner
        self._sandbox = sandbox
        self._machine = machine
        self._queue = queue
        self._drain_s = drain_s
        self._network = network
        self._calls: dict[str, Call] = {}
        self._starting: dict[str, set[asyncio.Task[Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def run(self, text: str, stdin: int, owner: str) -> Handle:
        """Start a call for `owner`. Takes stdin over. Raises SpecInvalid, SandboxRefused, Busy."""
        with contextlib.ExitStack() as unclaimed:
            unclaimed.callback(os.close, stdin)
            if self._closing:
                raise Busy("the isolator is stopping", "try again in a moment")
            with self._is_starting(owner):
                spec, plan = await self._parsed(text)
                user = spec.home_owner or 0
                await self._queue.enter(user)
                try:
                    unclaimed.pop_all()
                    return await self._start(spec, plan, stdin, owner, user)
                except BaseException:
                    self._queue.leave(user)
                    raise

    async def _parsed(self, text: str) -> tuple[Spec, Plan]:
        try:
            return await self._planned(text)
        except (SpecInvalid, SandboxRefused) as error:
            step = error.step if isinstance(error, SandboxRefused) else "spec"
            log.warning("refused: %s", error.message, extra={"CLAWOS_LIMIT": f"refused:{step}"})
            raise

    async def _planned(self, text: str) -> tuple[Spec, Plan]:
        spec = parse(text)
        proxy = None
        if spec.network == "egress":
            if self._network is None:
                raise EgressRefused(Unavailable("nothing leads out of this machine"))
            proxy = await self._network.proxy()
        return spec, self._planner.plan(spec, proxy)

    async def cancel(self, call_id: str, owner: str) -> None:
        """End a call; a call that is over, or another owner's, is left in peace."""
        call = self._calls.get(call_id)
        if call and call.owner == owner:
            call.cancel()

    def vanished(self, owner: str) -> None:
        """The owner left: nobody waits for his calls any more."""
        for task in tuple(self._starting.get(owner, ())):
            task.cancel()
        for call in tuple(self._calls.values()):
            if call.owner == owner:
                call.cancel()

    async def plan(self, text: str) -> dict[str, Any]:
        """What `run` would do. Raises SpecInvalid, SandboxRefused."""
        _, plan = await self._planned(text)
        return plan.describe()

    def status(self) -> dict[str, Any]:
        return {
            "running": self._queue.running,
            "queued": self._queue.queued,
            "backend": self._machine.backend(),
            "landlock_abi": self._machine.landlock_abi(),
            "namespaces": NAMESPACES,
            "cgroup": self._machine.cgroup(),
        }

    async def close(self) -> None:
        """End all calls and leave nothing behind."""
        self._closing = True
        for tasks in tuple(self._starting.values()):
            for task in tuple(tasks):
                task.cancel()
        for call in tuple(self._calls.values()):
            call.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        while self._tasks:  # what waits for a reader who does not read, and what that leaves to do
            for rest in tuple(self._tasks):
                rest.cancel()
            await asyncio.wait(self._tasks)
        await self._sandbox.close()

    @contextlib.contextmanager
    def _is_starting(self, owner: str) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._starting.setdefault(owner, set()).add(task)
        try:
            yield
        finally:
            self._starting[owner].discard(task)
            if not self._starting[owner]:
                del self._starting[owner]

    async def _start(self, spec: Spec, plan: Plan, stdin: int, owner: str, user: int) -> Handle:
        call_id = secrets.token_hex(8)
        async with contextlib.AsyncExitStack() as on_failure:
            on_failure.enter_context(_refusing(call_id, plan))

            def ours(fd: int) -> int:
                on_failure.callback(os.close, fd)
                return fd

            ours(stdin)
            writers, theirs = [], []
            for _ in range(3):
                fd, writer = await Writer.open()
                on_failure.push_async_callback(writer.close)
                writers.append(writer)
                theirs.append(ours(fd))
            stdout, stderr, result = writers
            with contextlib.ExitStack() as sandbox_ends:
                feed: Feed | None = None
                if spec.stdin:
                    try:
                        read_end, feed = Feed.open(stdin)
                    except RuntimeError:
                        raise SandboxRefused("stdin", errno.EAGAIN) from None
                    on_failure.push_async_callback(feed.stop)
                else:
                    read_end = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                sandbox_ends.callback(os.close, read_end)
                out_read, out_write = os.pipe2(os.O_CLOEXEC)
                sandbox_ends.callback(os.close, out_write)
                ours(out_read)
                err_read, err_write = os.pipe2(os.O_CLOEXEC)
                sandbox_ends.callback(os.close, err_write)
                ours(err_read)
                running = await self._sandbox.start(call_id, plan, Streams(read_end, out_write, err_write))
            on_failure.pop_all()
        # From here to the end nothing waits: a call that runs is a call that is known.
        os.close(stdin)
        call = Call(call_id, owner, user, plan, running, result, relay.Budget(plan.quota.output_bytes))
        self._calls[call_id] = call
        outputs = [
            self._task(relay.output(out_read, stdout, call.budget, lambda: self._stop(call))),
            self._task(relay.output(err_read, stderr, call.budget, lambda: self._stop(call))),
        ]
        if feed:
            feed.go()
        self._task(self._carry(call, outputs, feed))
        return Handle(call_id, *theirs)

    def _stop(self, call: Call) -> None:
        """The output's limit is reached, or nobody reads it."""
        if call.budget.exceeded:
            call.running.kill()
        elif call.id in self._calls:
            call.cancel()

    async def _carry(self, call: Call, outputs: list[asyncio.Task[None]], feed: Feed | None) -> None:
        """See a started call through to its result."""
        try:
            ended = await self._end(call)
        finally:
            del self._calls[call.id]
            drained = self._task(self._drain(call, outputs, feed))
        try:
            await asyncio.wait([drained], timeout=_DRAIN_S)
            if ended:
                await self._report(call, *ended)
        finally:
            await call.result.close()

    async def _end(self, call: Call) -> tuple[Outcome, float] | None:
        """How the sandbox ended and how long it ran; None when that cannot be said."""
        waiting = asyncio.create_task(call.running.wait())
        try:
            done, _ = await asyncio.wait([waiting], timeout=call.plan.wall_s + _WALL_GRACE_S)
            if not done:
                call.running.kill()
            return await waiting, time.monotonic() - call.started
        except Exception:
            log.exception("call of %s was lost", call.plan.tool, extra=_fields(call.id, call.plan, "lost"))
            return None

    async def _drain(self, call: Call, outputs: list[asyncio.Task[None]], feed: Feed | None) -> None:
        """Keep the call's turn while it holds descriptors: who does not read uses up his own turns."""
        try:
            stopping = [self._task(feed.stop())] if feed else []
            _, unread = await asyncio.wait(outputs, timeout=self._drain_s)
            if unread:
                fields = _fields(call.id, call.plan, "unread")
                log.warning("output of %s was not read in time", call.plan.tool, extra=fields)
                for output in unread:
                    output.cancel()
            await asyncio.wait([*outputs, *stopping])
        finally:
            self._queue.leave(call.user)

    async def _report(self, call: Call, outcome: Outcome, wall_s: float) -> None:
        limit = _limit(call, outcome)
        if limit:
            log.warning(
                "call of %s met a limit: %s", call.plan.tool, limit, extra=_fields(call.id, call.plan, limit)
            )
        else:
            log.info("call of %s is over", call.plan.tool, extra=_fields(call.id, call.plan, ""))
        result = Result(
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            limit=limit,
            wall_s=round(wall_s, 6),
            cpu_s=outcome.cpu_s,
            peak_memory_bytes=outcome.peak_memory_bytes,
            peak_pids=outcome.peak_pids,
            out_of_memory=outcome.out_of_memory,
            landlock_abi=outcome.landlock_abi,
            cgroup_id=outcome.cgroup_id,
        )
        with contextlib.suppress(StreamClosed):
            await call.result.send_json(result)

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@contextlib.contextmanager
def _refusing(call_id: str, plan: Plan) -> Iterator[None]:
    """Every refusal is an event of the journal, that of a machine without a descriptor to spare too."""
    try:
        yield
        return
    except SandboxRefused as error:
        refused = error
    except OSError as error:
        refused = SandboxRefused("streams", error.errno or errno.EIO)
    log.warning("refused: %s", refused.message, extra=_fields(call_id, plan, f"refused:{refused.step}"))
    raise refused from None


def _limit(call: Call, outcome: Outcome) -> str | None:
    """Which limit ended the call; a program that lived with a refused fork and ended by itself hit none."""
    if call.cancelled:
        return "cancelled"
    if call.budget.exceeded:
        return "output"
    if outcome.out_of_time:
        return "wall"
    if outcome.out_of_memory:
        return "memory"
    if outcome.out_of_pids and outcome.exit_code != 0:
        return "pids"
    if call.plan.argv[0] == options.PROGRAM and outcome.exit_code is not None:
        return ends.LIMITS.get(outcome.exit_code)
    return None


def _fields(call_id: str, plan: Plan, limit: str) -> dict[str, str]:
    return {"CLAWOS_CALL": call_id, "CLAWOS_TOOL": plan.tool, "CLAWOS_LIMIT": limit}
