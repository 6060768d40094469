"""What the monitor needs from the outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from clawos.core.parse import Record
from clawos.monitor.event import Event

Look = Callable[[int], tuple[str, tuple[str, ...]] | None]
"""The program of a process that runs, and those of its ancestors; None where there is no such process."""


class Source(Protocol):
    """The kernel's events."""

    def fileno(self) -> int:
        """A descriptor that is readable while events wait."""
        ...

    def read(self, limit: int) -> Sequence[Event]:
        """Up to so many of those that wait, in the order of the ring. Never waits."""
        ...

    def lost(self) -> Mapping[str, int]:
        """Events that the kernel side could not hand over since it was loaded, by kind."""
        ...

    def used(self) -> float:
        """The part of the ring that is taken, 0 to 1."""
        ...

    def close(self) -> None: ...


class Counters(Protocol):
    """What the kernel side counts beside events."""

    def xdp(self) -> Mapping[tuple[str, str], int]:
        """Packets, by the XDP program and what became of them."""
        ...

    def denials(self) -> Mapping[str, int]:
        """How often each rule of policies/enforce.toml said no."""
        ...


class CallInfo(Record, frozen=True):
    """What the isolator says of a call."""

    id: str
    tool: str
    user: int
    session: str
    ended: bool


class Isolator(Protocol):
    async def calls(self) -> Sequence[CallInfo]:
        """Those that run, and those that ended lately. Raises ClawError."""
        ...

    async def end(self, call: str, reason: str) -> bool:
        """Kill a call. Returns whether it ran. Raises ClawError."""
        ...


class Agent(Protocol):
    async def freeze(self, session: str, reason: str) -> None:
        """Let the session make no further call. Raises ClawError."""
        ...
