"""The states of a session: one table says which may follow which."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum

from clawos.agent.errors import TransitionUndeclared

log = logging.getLogger(__name__)


class State(StrEnum):
    """What a session is doing."""

    IDLE = "idle"
    THINKING = "thinking"  # the model was asked and has not said anything yet
    STREAMING = "streaming"  # the model's text is coming
    CALLING_TOOL = "calling_tool"
    PAUSED = "paused"  # waits for an approval
    ERROR = "error"  # a turn has just failed
    SHUTDOWN = "shutdown"


_I, _T, _S, _C, _P, _E, _X = State

TRANSITIONS: Mapping[State, frozenset[State]] = {
    _I: frozenset({_T, _X}),
    _T: frozenset({_S, _C, _P, _I, _E, _X}),
    _S: frozenset({_T, _C, _P, _I, _E, _X}),
    _C: frozenset({_T, _C, _P, _I, _E, _X}),
    _P: frozenset({_C, _I, _E, _X}),
    _E: frozenset({_I, _X}),
    _X: frozenset(),
}


class StateMachine:
    """The state of one session."""

    def __init__(self) -> None:
        self._state = State.IDLE

    @property
    def state(self) -> State:
        return self._state

    def to(self, state: State) -> None:
        """Enter a state. Raises TransitionUndeclared, and says so in the journal: it is a bug of ours."""
        if state not in TRANSITIONS[self._state]:
            log.error("undeclared transition %s -> %s", self._state, state)
            raise TransitionUndeclared(
                f"a session cannot go from {self._state} to {state}",
                "please report this",
                source=str(self._state),
                target=str(state),
            )
        self._state = state
