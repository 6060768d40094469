"""Which tool, user and session a call is of. The kernel knows only its id; the isolator knows the rest."""

from __future__ import annotations

import time
from collections import OrderedDict

KNOWN_MAX = 1024
"""Calls that are remembered; the oldest go first. More than may run at a time, many times over."""


class Sandbox:
    """One call. What the isolator has not told yet is empty."""

    __slots__ = ("alerted", "ended", "id", "is_told", "met_s", "session", "tool", "user")

    def __init__(self, call: str) -> None:
        self.id = call
        self.tool = ""
        self.session = ""
        self.user: int | None = None
        self.is_told = False
        self.met_s = time.monotonic()
        self.ended = False
        self.alerted = False
        """A rule said so: nothing is learnt from it."""

    def tell(self, tool: str, user: int, session: str) -> None:
        self.tool, self.user, self.session, self.is_told = tool, user, session, True


class Sandboxes:
    """The calls of late, by id."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Sandbox] = OrderedDict()
        self.untold: set[str] = set()
        """Of these the isolator must be asked."""

    def of(self, call: str) -> Sandbox:
        sandbox = self._known.get(call)
        if sandbox is None:
            sandbox = self._known[call] = Sandbox(call)
            self.untold.add(call)
            if len(self._known) > KNOWN_MAX:
                old, _ = self._known.popitem(last=False)
                self.untold.discard(old)
        return sandbox

    def find(self, call: str) -> Sandbox | None:
        return self._known.get(call)

    def tell(self, call: str, tool: str, user: int, session: str) -> Sandbox:
        sandbox = self.of(call)
        sandbox.tell(tool, user, session)
        self.untold.discard(call)
        return sandbox

    def newest_of(self, user: int | None, session: str = "") -> Sandbox | None:
        """The last call, of one user or any, in one session or any."""
        for sandbox in reversed(self._known.values()):
            if (user is None or sandbox.user == user) and (not session or sandbox.session == session):
                return sandbox
        return None

    def running(self) -> list[Sandbox]:
        return [sandbox for sandbox in self._known.values() if not sandbox.ended]

    def __len__(self) -> int:
        return len(self._known)
