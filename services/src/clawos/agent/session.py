"""A session in memory: what it is doing, what was approved in it, and the end of its conversation."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from clawos.agent.conversation import Message
from clawos.agent.permission import Approvals
from clawos.agent.ports import StoredSession
from clawos.agent.sandbox import User
from clawos.agent.states import State, StateMachine

if TYPE_CHECKING:
    from clawos.agent.turn import Turn

REMEMBERED_COMMANDS = 16


class Session:
    """One conversation of one user. Approvals live here only: a restart forgets them, the safe side."""

    def __init__(self, stored: StoredSession, user: User) -> None:
        self.id = stored.id
        self.name = stored.name
        self.user = user
        self.machine = StateMachine()
        self.approvals = Approvals()
        self.history: list[Message] | None = None
        """As the store has it; None until the first turn reads it."""
        self.turn: Turn | None = None
        # Their streams go past us: we do not know which are over, and cancelling one that is does nothing.
        self.commands: deque[str] = deque(maxlen=REMEMBERED_COMMANDS)

    @property
    def state(self) -> State:
        return self.machine.state
