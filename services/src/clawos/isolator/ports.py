"""What the isolator needs from the outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from clawos.isolator.plan import Plan, Proxy


@dataclass(frozen=True)
class Streams:
    """Descriptors that become the program's 0, 1 and 2; they stay the giver's to close."""

    stdin: int
    stdout: int
    stderr: int


@dataclass(frozen=True)
class Outcome:
    """How a sandbox ended. One of `exit_code` and `signal` is set."""

    exit_code: int | None
    signal: int | None
    out_of_time: bool
    out_of_memory: bool
    out_of_pids: bool
    cpu_s: float
    peak_memory_bytes: int
    peak_pids: int
    landlock_abi: int
    cgroup_id: int = 0
    """0 where there was no cgroup."""


class Running(Protocol):
    """A sandbox in which a program runs."""

    async def wait(self) -> Outcome:
        """Until nothing of it is left."""
        ...

    def kill(self) -> None:
        """End everything in it, now. Harmless when it is over already."""
        ...


class Sandbox(Protocol):
    async def start(self, call_id: str, plan: Plan, streams: Streams) -> Running:
        """Set up a sandbox in full and start the program. Raises SandboxRefused if any part fails."""
        ...

    async def close(self) -> None:
        """Let go of what was made ahead, once no sandbox is left."""
        ...


class Network(Protocol):
    """Who links network namespaces to the egress service."""

    async def proxy(self) -> Proxy:
        """Where the egress service listens. Raises EgressRefused."""
        ...

    async def attach(self, route: int) -> Proxy:
        """Link the namespace of a route socket to where that is. Raises EgressRefused."""
        ...


class Machine(Protocol):
    """What this machine offers, for `Status`."""

    def backend(self) -> str: ...

    def landlock_abi(self) -> int: ...

    def cgroup(self) -> str: ...
