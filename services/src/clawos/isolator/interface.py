"""The bus face of the isolator: org.clawos.Isolator1."""

from __future__ import annotations

from clawos.core.bus import Bus, Fd, Fds, Interface, Str, caller, method
from clawos.core.parse import to_json
from clawos.isolator.service import Isolator


class IsolatorInterface(Interface):
    # One peer is the agent's service, with the calls of all users: its bound is the queue, fair to them.
    under_way_max = 1024

    def __init__(self, isolator: Isolator, bus: Bus) -> None:
        super().__init__()
        self._isolator = isolator
        self._bus = bus
        self._watched: set[str] = set()

    @method
    async def run(self, spec: Str, stdin: Fd) -> tuple[Str, Fd, Fd, Fd]:
        """Run one call in one sandbox. Answers its id and the streams stdout, stderr and result."""
        call = await self._isolator.run(spec, stdin, self._watch(caller().unique_name))
        return call.id, call.stdout, call.stderr, call.result

    @method
    async def run_group(self, group: Str, stdin: Fd) -> tuple[Str, Fds, Fds, Fd]:
        """Run calls together, side by side or as a chain. Answers the group's id and the streams."""
        made = await self._isolator.run_group(group, stdin, self._watch(caller().unique_name))
        return made.id, made.stdout, made.stderr, made.result

    @method
    async def cancel(self, id: Str) -> None:  # noqa: A002 # the member's name on the bus
        """Kill a call or a group of one's own; what is over is left in peace."""
        await self._isolator.cancel(id, caller().unique_name)

    @method
    async def calls(self) -> Str:
        """Tool, user and session of the calls that run and of those that ended lately, as JSON."""
        return to_json(self._isolator.calls())

    @method
    async def end(self, call: Str, reason: Str) -> Str:
        """Kill anybody's call, for the monitor. Answers, as JSON, whether it ran."""
        return to_json(self._isolator.end(call, reason))

    @method
    async def plan(self, spec: Str) -> Str:
        """The mounts, limits and filters that Run would set up, as JSON; nothing runs."""
        return to_json(await self._isolator.plan(spec))

    @method
    async def status(self) -> Str:
        """Calls under way and what this kernel offers, as JSON."""
        return to_json(self._isolator.status())

    def _watch(self, owner: str) -> str:
        """A caller that leaves the bus takes his calls with him."""
        if owner not in self._watched:
            self._watched.add(owner)
            self._bus.on_vanish(owner, lambda: self._vanished(owner))
        return owner

    def _vanished(self, owner: str) -> None:
        self._watched.discard(owner)
        self._isolator.vanished(owner)
