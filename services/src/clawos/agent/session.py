"""A session in memory: what it is doing, what was approved in it, and the end of its conversation."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clawos.agent.conversation import Message
from clawos.agent.errors import SessionFrozen
from clawos.agent.manifest import Safety
from clawos.agent.permission import Approvals
from clawos.agent.ports import Peer, StoredSession
from clawos.agent.sandbox import User
from clawos.agent.states import State, StateMachine

if TYPE_CHECKING:
    from clawos.agent.turn import Turn

REMEMBERED_COMMANDS = 16


class Session:
    """One conversation of one user."""

    def __init__(self, stored: StoredSession, user: User) -> None:
        self.id = stored.id
        self.name = stored.name
        self.user = user
        self.frozen = stored.frozen
        """Why it may make no call; "" where it may."""
        self.machine = StateMachine()
        self._approvals: dict[str, Approvals] = {}
        self.history: list[Message] | None = None
        """As the store has it; None until the first turn reads it."""
        self.turn: Turn | None = None
        # Their streams go past us: we do not know which are over, and cancelling one that is does nothing.
        self.commands: deque[str] = deque(maxlen=REMEMBERED_COMMANDS)

    @property
    def state(self) -> State:
        return self.machine.state

    def check_frozen(self) -> None:
        """Raises SessionFrozen."""
        if self.frozen:
            raise SessionFrozen(self.id, self.frozen)

    def approved(self, peer: Peer, tool: str, safety: Safety, arguments: Mapping[str, Any]) -> bool:
        """Whether this very connection gave an "always" that covers the call.

        Another login or terminal of the same user may continue the conversation, not the consent: whoever
        types there has not been asked.
        """
        given = self._approvals.get(peer.unique_name)
        return given is not None and given.cover(tool, safety, arguments)

    def approve_always(self, peer: Peer, tool: str, safety: Safety, arguments: Mapping[str, Any]) -> None:
        """Remember an "always" until the connection that gave it leaves the bus."""
        name = peer.unique_name
        if name not in self._approvals:
            self._approvals[name] = Approvals()
            peer.on_vanish(lambda: self._forget(name))
        self._approvals[name] = self._approvals[name].always(tool, safety, arguments)

    def _forget(self, connection: str) -> None:
        self._approvals.pop(connection, None)
