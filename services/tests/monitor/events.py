"""Events as the kernel side tells them, in few words; and a rig that feeds them to the real engine."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clawos.monitor.baseline import Baseline
from clawos.monitor.detect.files import load
from clawos.monitor.detect.ruleset import RuleSet
from clawos.monitor.engine import Engine
from clawos.monitor.event import Event
from clawos.monitor.sandboxes import Sandboxes
from clawos.monitor.tree import Process, Tree

RULES = Path(__file__).parents[3] / "policies" / "detect"
CALL = "0123456789abcdef"
BEGIN_NS = 1_000_000_000_000
STEP_NS = 1_000_000

_clock = itertools.count(BEGIN_NS, STEP_NS)


def happened(
    kind: str,
    *,
    call: str = "",
    tgid: int = 4711,
    uid: int = 1000,
    comm: str = "test",
    exe: str = "/usr/bin/test-program",
    parent: str = "/usr/bin/bash",
    time_ns: int | None = None,
    ppid: int = 1,
    **own: Any,
) -> Event:
    """`exe` and `parent` are what the tree knows of the process before this event."""
    sandbox = Sandboxes().of(call) if call else None
    return Event(
        kind,
        next(_clock) if time_ns is None else time_ns,
        call,
        5000 if call else 42,
        tgid,
        tgid,
        tgid * 10,
        ppid,
        7,
        uid,
        uid,
        comm,
        own,
        Process((tgid, tgid * 10), exe, (parent, "/usr/bin/login", "/usr/lib/systemd/systemd"), sandbox),
    )


def x(command: str, *, path: str = "", links: int = 1, **more: Any) -> Event:
    """A program is run."""
    args = shlex.split(command)
    more.setdefault("comm", (path or args[0] if path or args else "").rpartition("/")[2][:15])
    more.setdefault("loader", [])
    where = path or (args[0] if args and args[0].startswith("/") else f"/usr/bin/{args[0] if args else ''}")
    return happened(
        "exec", path=where, args=args, args_truncated=False, links=links, inode=1, device=1, **more
    )


def read(path: str, **more: Any) -> Event:
    return happened("open", path=path, flags=0, mode=0o100644, write=False, **more)


def write(path: str, **more: Any) -> Event:
    return happened("open", path=path, flags=0o1101, mode=0o100644, write=True, **more)


def connect(address: str, port: int, family: int = 2, **more: Any) -> Event:
    return happened("connect", family=family, address=address, port=port, **more)


class Rig:
    """An engine with rules, and what hit."""

    def __init__(self, rules: RuleSet | None = None) -> None:
        self.sandboxes = Sandboxes()
        self.hits: list[tuple[str, Sequence[Event]]] = []
        self.messages: list[str] = []
        tree = Tree(self.sandboxes, lambda _: None, 4096)
        self.engine = Engine(rules or load([RULES]), tree, self.sandboxes, Baseline(), self._hit)

    def _hit(self, compiled: Any, hit: Sequence[Event]) -> None:
        self.hits.append((compiled.rule.id, hit))
        self.messages.append(compiled.message(hit[-1]))

    def feed(self, *events: Event) -> set[str]:
        """Returns the ids of the rules that hit."""
        self.hits.clear()
        self.messages.clear()
        for event in events:
            # A process of these events is there before them, with the program that it is said to run.
            process = event.process
            if process is not None and process.key not in self.engine.tree.processes:
                self.engine.tree.processes[process.key] = process
            self.engine.feed([event])
        return {rule for rule, _ in self.hits}
