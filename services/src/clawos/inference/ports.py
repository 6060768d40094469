"""What the room's behaviour asks of the outside and of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from clawos.inference.chat import ChatRequest, Event, Finish
from clawos.inference.session import Session

Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Prompt:
    """What the model reads, as text whose control tokens count as such."""

    text: str
    add_bos: bool


class Turn(Protocol):
    """One answer under way, in the worker thread; the prompt has been read."""

    @property
    def grammar_s(self) -> float:
        """What holding the answer to its grammar took."""
        ...

    def step(self) -> bool:
        """Produce one token. Returns True when the answer is complete."""
        ...

    def finish(self, *, cut: bool) -> Finish:
        """Emit what is left; `cut` says that there was no room for the rest."""
        ...

    def close(self) -> None: ...


class Dialect(Protocol):
    """How one kind of model is asked and how its answer is read."""

    name: str
    max_tokens: int

    async def prompt(self, request: ChatRequest) -> Prompt:
        """The prompt of a request. Raises ModelInvalid if the model's own template fails."""
        ...

    def begin(self, session: Session, request: ChatRequest, emit: Emit) -> Turn:
        """Prepare for the answer. Raises GrammarInvalid. In the worker thread."""
        ...

    async def close(self) -> None: ...


class Peers(Protocol):
    """Tells when a caller leaves the bus."""

    def on_vanish(self, unique_name: str, callback: Callable[[], None]) -> Callable[[], None]: ...
