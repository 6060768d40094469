"""The isolator's behaviour: check, wait for a turn, start. Knows no bus and no kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clawos.core.errors import Busy, Unavailable
from clawos.core.stream import StreamClosed, Writer
from clawos.isolator.call import Ends, Order, Result, refusing, start, stream
from clawos.isolator.calls import Calls, Told
from clawos.isolator.errors import EgressRefused, GroupTooLarge, SandboxRefused, SpecInvalid
from clawos.isolator.group import GroupHandle, Groups
from clawos.isolator.plan import NAMESPACES, Plan
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Machine, Network, Sandbox
from clawos.isolator.queue import FairQueue
from clawos.isolator.spec import Spec, parse, parse_group

log = logging.getLogger(__name__)

_REASON_MAX = 300


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
        self._calls = Calls(queue, drain_s)
        self._groups = Groups(sandbox, self._calls, queue)
        self._network = network
        self._starting: dict[str, set[asyncio.Task[Any]]] = {}
        self._closing = False

    async def run(self, text: str, stdin: int, owner: str) -> Handle:
        """Start a call for `owner`. Takes stdin over. Raises SpecInvalid, SandboxRefused, Busy."""
        with contextlib.ExitStack() as unclaimed:
            unclaimed.callback(os.close, stdin)
            with self._is_starting(owner):
                with _refused():
                    spec = parse(text)
                    order = Order(secrets.token_hex(8), owner, spec, await self._planned(spec))
                await self._enter([order])
                unclaimed.pop_all()
                return await self._start(order, stdin)

    async def run_group(self, text: str, stdin: int, owner: str) -> GroupHandle:
        """Start calls together for `owner`. Takes stdin over.

        Raises SpecInvalid, SandboxRefused, Busy, GroupTooLarge.
        """
        with contextlib.ExitStack() as unclaimed:
            unclaimed.callback(os.close, stdin)
            with self._is_starting(owner):
                with _refused():
                    group, group_id = parse_group(text), secrets.token_hex(8)
                    orders = [
                        Order(
                            f"{group_id}-{index}",
                            owner,
                            spec,
                            await self._planned_of(index, spec),
                            group_id,
                            index,
                        )
                        for index, spec in enumerate(group.calls)
                    ]
                await self._enter(orders)
                unclaimed.pop_all()
                return await self._groups.start(group.how, orders, stdin)

    async def cancel(self, some_id: str, owner: str) -> None:
        """End a call or a group; one that is over, or another owner's, is left in peace."""
        found = self._calls.find(some_id) or self._groups.find(some_id)
        if found and found.owner == owner:
            found.cancel()

    def calls(self) -> list[Told]:
        """Whose calls run, and whose ended lately."""
        return self._calls.told()

    def end(self, call_id: str, reason: str) -> bool:
        """Kill a call, whosever it is. Returns whether it ran."""
        found = self._calls.find(call_id)
        if found is None:
            return False
        log.warning("ended by the monitor: %s", _printable(reason), extra=found.order.fields("monitor"))
        found.cancel("monitor")
        return True

    def vanished(self, owner: str) -> None:
        """The owner left: nobody waits for his calls any more."""
        for task in tuple(self._starting.get(owner, ())):
            task.cancel()
        for call in self._calls.of(owner):
            call.cancel()

    async def plan(self, text: str) -> dict[str, Any]:
        """What `run` would do. Raises SpecInvalid, SandboxRefused."""
        return (await self._planned(parse(text))).describe()

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
        await self._calls.close()
        await self._sandbox.close()

    async def _planned(self, spec: Spec) -> Plan:
        proxy = None
        if spec.network == "egress":
            if self._network is None:
                raise EgressRefused(Unavailable("nothing leads out of this machine"))
            proxy = await self._network.proxy()
        return self._planner.plan(spec, proxy)

    async def _planned_of(self, index: int, spec: Spec) -> Plan:
        """The plan of one call of a group."""
        try:
            return await self._planned(spec)
        except SpecInvalid as error:
            raise SpecInvalid(f"calls[{index}]: {error.message}", error.hint) from None
        except SandboxRefused as error:
            raise error.of_call(index, spec.tool) from None

    @contextlib.contextmanager
    def _is_starting(self, owner: str) -> Iterator[None]:
        """Without the owner there is no body."""
        task = asyncio.current_task()
        assert task is not None
        self._starting.setdefault(owner, set()).add(task)
        try:
            yield
        finally:
            self._starting[owner].discard(task)
            if not self._starting[owner]:
                del self._starting[owner]

    async def _enter(self, orders: Sequence[Order]) -> None:
        """Take places for all, which are the caller's to give back. Raises Busy, GroupTooLarge."""
        if self._closing:
            raise Busy("the isolator is stopping", "try again in a moment")
        try:
            await self._queue.enter(orders[0].spec.user, len(orders))
        except (Busy, GroupTooLarge) as error:
            for order in orders:
                log.warning("refused: %s", error.message, extra=order.fields("refused:queue"))
            raise

    async def _start(self, order: Order, stdin: int) -> Handle:
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(self._queue.leave, order.spec.user)
            undo.callback(os.close, stdin)
            with refusing(order):
                theirs, writers = zip(*[await stream(undo) for _ in range(3)], strict=True)
                started, feed = await start(self._sandbox, order, stdin, undo)
            undo.pop_all()
        os.close(stdin)
        stdout, stderr, result = writers
        carried = self._calls.carry(started, Ends(stdout, stderr), feed)
        self._calls.task(_tell(carried, result))
        return Handle(order.id, *theirs)


async def _tell(carried: asyncio.Task[Result | None], writer: Writer) -> None:
    try:
        if result := await carried:
            with contextlib.suppress(StreamClosed):
                await writer.send_json(result)
    finally:
        await writer.close()


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """What does not become an order is an event of the journal, too."""
    try:
        yield
    except (SpecInvalid, SandboxRefused) as error:
        step = error.step if isinstance(error, SandboxRefused) else "spec"
        log.warning("refused: %s", error.message, extra={"CLAWOS_LIMIT": f"refused:{step}"})
        raise


def _printable(text: str) -> str:
    """On one line, and not too long."""
    return "".join(c if c.isprintable() else "?" for c in text[:_REASON_MAX])
