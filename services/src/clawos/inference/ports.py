"""What the room's behaviour asks of the outside and of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from clawos.inference.chat import ChatRequest, Event, Finish
from clawos.inference.session import Session

Emit = Callable[[Event], None]


class Stoppable(Protocol):
    """A computation of llama.cpp that another thread may end."""

    def stop(self) -> None: ...

    def resume(self) -> None: ...


class Work(Protocol):
    """A chat on its way through the engine."""

    @property
    def request(self) -> ChatRequest: ...

    def enter(self, computation: Stoppable) -> None:
        """From here on cancelling the chat stops this computation. Raises Cancelled if it came before."""
        ...

    def leave(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How an answer ended and what it took."""

    finish: Finish
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_s: float = 0.0
    completion_s: float = 0.0
    grammar_s: float = 0.0


class Speaker(Protocol):
    """A loaded model with all that it takes to answer."""

    name: str
    """The dialect in which it is asked."""

    @property
    def context_tokens(self) -> int: ...

    async def prepare(self, request: ChatRequest) -> Any:
        """What `answer` needs of a request, made outside the worker thread. Raises ModelInvalid."""
        ...

    def answer(self, work: Work, prepared: Any, emit: Emit) -> Outcome:
        """Answer in the worker thread. Raises ContextFull, GrammarInvalid, ModelInvalid."""
        ...

    async def close(self) -> None:
        """End helpers of its own; what lives in the worker thread ends with `release`."""
        ...

    def release(self) -> None: ...


@dataclass(frozen=True)
class Prompt:
    """What a model reads before it writes, as text whose control tokens count as such."""

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
    """How one kind of model that writes is asked and how its answer is read."""

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
