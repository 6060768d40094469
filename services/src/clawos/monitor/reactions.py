"""What is done about an alert: the journal, the bus, the end of the sandbox and of its session's calls."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence

from clawos.core.errors import ClawError
from clawos.monitor.alerts import Alert, Reacted
from clawos.monitor.ports import Agent, Isolator
from clawos.monitor.sandboxes import Sandboxes

log = logging.getLogger(__name__)

UNDER_WAY_MAX = 64
TIMEOUT_S = 10.0
Done = Callable[[Alert], None]


class Reactions:
    def __init__(
        self, isolator: Isolator, agent: Agent, sandboxes: Sandboxes, tell: Callable[[Alert], None]
    ) -> None:
        """`tell`: put an alert on the bus."""
        self._isolator = isolator
        self._agent = agent
        self._sandboxes = sandboxes
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: Counter[tuple[str, str]] = Counter()
        """By kind and by what came of it: done, failed."""

    def start(self, alert: Alert, kinds: Sequence[str], then: Done) -> None:
        """React. `then` is called with the alert when all that is to be done was done, or failed."""
        acts = [kind for kind in kinds if kind in ("kill", "freeze")]
        if acts and not alert.call:
            # Outside of a sandbox there is nobody whom we could end without ending the machine's work.
            acts = []
        if not acts:
            self._finish(alert, kinds, then)
            return
        if len(self._tasks) >= UNDER_WAY_MAX:
            alert.reactions += [Reacted(kind, False, "too many reactions are under way") for kind in acts]
            self._finish(alert, kinds, then)
            return
        task = asyncio.get_running_loop().create_task(self._carry_out(alert, acts, kinds, then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """What was begun is brought to an end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TIMEOUT_S)

    async def _carry_out(self, alert: Alert, acts: Sequence[str], kinds: Sequence[str], then: Done) -> None:
        for act in acts:  # a sandbox is ended first: while it lives, it acts
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await (self._kill(alert) if act == "kill" else self._freeze(alert))
                reacted = Reacted(act, True)
            except ClawError as error:
                reacted = Reacted(act, False, error.message)
            except TimeoutError:
                reacted = Reacted(act, False, f"no answer within {TIMEOUT_S:g} s")
            alert.reactions.append(reacted)
            self.counts[act, "done" if reacted.done else "failed"] += 1
        self._finish(alert, kinds, then)

    async def _kill(self, alert: Alert) -> None:
        if not await self._isolator.end(alert.call, f"{alert.rule}: {alert.title}"):
            raise ClawError("it was over already")

    async def _freeze(self, alert: Alert) -> None:
        sandbox = self._sandboxes.of(alert.call)
        if not sandbox.is_told:
            for told in await self._isolator.calls():
                self._sandboxes.tell(told.id, told.tool, told.user, told.session)
        if not sandbox.session:
            raise ClawError("the call is of no session")
        alert.session = sandbox.session
        await self._agent.freeze(sandbox.session, f"{alert.rule}: {alert.title}")

    def _finish(self, alert: Alert, kinds: Sequence[str], then: Done) -> None:
        _write_to_journal(alert)
        self.counts["log", "done"] += 1
        if "alert" in kinds:
            self._tell(alert)
            self.counts["alert", "done"] += 1
        then(alert)


def _write_to_journal(alert: Alert) -> None:
    done = [one.kind for one in alert.reactions if one.done]
    failed = [f"{one.kind} failed ({one.error})" for one in alert.reactions if not one.done]
    also = f" [{', '.join([*done, *failed])}]" if alert.reactions else ""
    log.log(
        alert.level,
        "%s: %s%s",
        alert.severity,
        alert.message,
        also,
        extra={
            "CLAWOS_ALERT": alert.id,
            "CLAWOS_RULE": alert.rule,
            "CLAWOS_SEVERITY": alert.severity,
            "CLAWOS_ATTACK": " ".join(alert.attack),
            "CLAWOS_CALL": alert.call,
            "CLAWOS_SESSION": alert.session,
            "CLAWOS_TOOL": alert.tool,
            "CLAWOS_PID": alert.tgid,
        },
    )
