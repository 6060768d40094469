"""The process tree: what program runs in a process, and which ones led to it.

A process is known by its number and the time it started, for numbers come again. Each keeps the programs of
its ancestors itself, as they were when it was forked: an ancestor that is over needs no entry, and a chain of
a million forks holds no memory.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from clawos.monitor.sandboxes import Sandbox, Sandboxes

if TYPE_CHECKING:
    from clawos.monitor.event import Event
    from clawos.monitor.ports import Look

LINEAGE_MAX = 8
"""Ancestors that a process keeps."""
GONE_KEPT = 512
"""Processes that are over and still known: events of different processors come a little out of order."""

Key = tuple[int, int]


class Process:
    __slots__ = ("comm", "exe", "handed_on", "key", "lineage", "sandbox")

    def __init__(self, key: Key, exe: str, lineage: tuple[str, ...], sandbox: Sandbox | None) -> None:
        self.key = key
        self.exe = exe
        """Path of its program, as its own root shows it; "" where nobody knows."""
        self.lineage = lineage
        """Programs of its ancestors, the parent's first."""
        self.sandbox = sandbox
        self.comm = ""
        self.handed_on: tuple[str, ...] | None = None
        """What its children take over, made once for all of them."""

    @property
    def parent(self) -> str:
        return self.lineage[0] if self.lineage else ""

    def for_children(self) -> tuple[str, ...]:
        if self.handed_on is None:
            self.handed_on = (self.exe, *self.lineage[: LINEAGE_MAX - 1])
        return self.handed_on

    def becomes(self, exe: str) -> None:
        self.exe = exe
        self.handed_on = None


class Tree:
    def __init__(self, sandboxes: Sandboxes, look: Look, processes_max: int) -> None:
        self.processes: OrderedDict[Key, Process] = OrderedDict()
        self._sandboxes = sandboxes
        self._look = look
        self._max = processes_max
        self._gone: deque[Key] = deque()
        self.met = 0
        """Processes whose beginning was not told: they are older than we are, or an event was lost."""

    def of(self, event: Event) -> Process:
        """The process that an event is of, made up from what there is where it is not known."""
        process = self.processes.get((event.tgid, event.start_ns))
        if process is None:
            process = self._meet(event)
        call = event.call
        if call and (process.sandbox is None or process.sandbox.id != call):
            process.sandbox = self._sandboxes.of(call)
        return process

    def forked(self, event: Event, parent: Process) -> None:
        own = event.own
        key = (own["child_pid"], own["child_start_ns"])
        if key not in self.processes:  # its own first event may have come before
            self._add(Process(key, parent.exe, parent.for_children(), parent.sandbox))

    def executed(self, event: Event, process: Process) -> None:
        process.becomes(event.own["path"])
        process.comm = event.comm

    def exited(self, process: Process) -> None:
        self._gone.append(process.key)
        if len(self._gone) > GONE_KEPT:
            self.processes.pop(self._gone.popleft(), None)

    def _meet(self, event: Event) -> Process:
        self.met += 1
        parent = self.processes.get((event.ppid, event.parent_start_ns))
        found = None if event.kind == "exec" and parent else self._look(event.tgid)
        if found is not None:
            exe, lineage = found
        else:
            # After a lost fork it most often runs what its parent runs.
            exe, lineage = (parent.exe, parent.for_children()) if parent else ("", ())
        if parent is not None:
            lineage = parent.for_children()
        return self._add(Process((event.tgid, event.start_ns), exe, lineage, None))

    def _add(self, process: Process) -> Process:
        if len(self.processes) >= self._max:
            self._make_room()
        self.processes[process.key] = process
        return process

    def _make_room(self) -> None:
        """Those that are over go first, then the oldest; one that lives on is met again."""
        while self._gone:
            if self.processes.pop(self._gone.popleft(), None) is not None:
                return
        self.processes.popitem(last=False)


LIFE: dict[str, Callable[[Tree, Event, Process], None]] = {
    "fork": lambda tree, event, process: tree.forked(event, process),
    "exec": lambda tree, event, process: tree.executed(event, process),
    "exit": lambda tree, event, process: tree.exited(process) if event.pid == event.tgid else None,
}
"""The kinds that change the tree."""
