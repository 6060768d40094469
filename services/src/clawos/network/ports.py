"""What the network room needs from the outside."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

NAME_PREFIX = "claw-"
_FIRST_INDEX = 1000
"""Of links in both namespaces: far above what a kernel's own fallback devices take."""


@dataclass(frozen=True)
class Link:
    """One sandbox's place: everything about it follows from its number."""

    slot: int
    address: str

    @property
    def name(self) -> str:
        return f"{NAME_PREFIX}{self.slot}"

    @property
    def index(self) -> int:
        return _FIRST_INDEX + self.slot


class Segment(Protocol):
    """The network namespace that this room runs in."""

    def close(self) -> None: ...

    def open(self, proxy: str) -> None:
        """Give the segment the proxy's address. Raises OSError."""
        ...

    def clear(self) -> None:
        """Remove all links, whosever sandboxes' they are. Raises OSError."""
        ...

    def names(self) -> AbstractSet[str]:
        """Of the links to sandboxes that there are. Raises OSError."""
        ...

    def attach(self, link: Link, proxy: str, route: int, uid: int, program: int | None) -> None:
        """Make a link to the namespace of a route socket of this user's. Raises NotASandbox, LinkRefused."""
        ...


class Firewall(Protocol):
    def close(self) -> None: ...

    async def load(self, proxy: str, port: int) -> None:
        """Put the rules in force. Raises CommandFailed, OSError."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Call back, from the event loop, when the rules are not those any more."""
        ...

    def check(self) -> None:
        """Are the rules still those? Raises FirewallChanged."""
        ...


class Program(Protocol):
    def opened(self) -> AbstractContextManager[int | None]:
        """A descriptor of the XDP program; None where there is none. Raises ProgramRefused."""
        ...
