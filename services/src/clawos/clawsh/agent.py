"""What clawsh asks of `org.clawos.Agent1`, connected when first needed."""

from __future__ import annotations

import json

from clawos.core.errors import PREFIX, RemoteError
from clawos.core.wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AGENT = "org.clawos.Agent1"
INFERENCE = "org.clawos.Inference1"
MONITOR = "org.clawos.Monitor1"
AGENT_UNIT = "clawos-agent.service"

# The first call may start the service, on a machine that is emulated and busy booting.
START_TIMEOUT_S = 90
CALL_TIMEOUT_S = 30


class Agent:
    """One user's session with the agent."""

    def __init__(self, address: str, session_name: str, fresh: bool = False) -> None:
        self._address = address
        self._options = {"name": session_name, "fresh": fresh}
        self._wire: Wire | None = None
        self._session: str | None = None

    @property
    def wire(self) -> Wire:
        """The connection to the bus. Raises Unavailable."""
        if self._wire is None:
            self._wire = Wire.connect(self._address)
        return self._wire

    def forget(self) -> None:
        """Start over with the next call: after the agent went away its session must be opened again."""
        self._session = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def release(self) -> None:
        """Calls are no longer woken up by the interrupts of a turn that is over."""
        if self._wire is not None:
            self._wire.wake_fd = None

    @property
    def session(self) -> str:
        if self._session is None:
            (self._session,) = self.wire.room(
                AGENT, "OpenSession", json.dumps(self._options), timeout_s=START_TIMEOUT_S
            )
            self._options["fresh"] = False
        return self._session

    def ask(self, text: str, *, plan: bool, interactive: bool) -> int:
        """Start a turn. Returns the descriptor of its events."""
        request = json.dumps({"text": text, "plan": plan, "interactive": interactive})
        _, events = self._in_session("Ask", request)
        return int(events)

    def execute(self, command: str, stdin: int) -> tuple[int, int, int]:
        """Run a command in the sandbox. Returns the descriptors of stdout, stderr and the result."""
        _, stdout, stderr, result = self._in_session("Exec", json.dumps({"command": command}), fds=(stdin,))
        return stdout, stderr, result

    def approve(self, call: str, decision: str, edited: dict[str, Any] | None = None) -> None:
        """Answer a question. Raises RemoteError ArgumentsInvalid for edited arguments that do not fit."""
        answer: dict[str, Any] = {"call": call, "decision": decision}
        if edited is not None:
            answer["args"] = edited
        self.wire.room(AGENT, "Approve", self.session, json.dumps(answer))

    def cancel(self) -> None:
        self.wire.room(AGENT, "Cancel", self.session)

    def history(self) -> list[dict[str, Any]]:
        (text,) = self._in_session("History")
        return list(json.loads(text))

    def tools(self, timeout_s: float = CALL_TIMEOUT_S) -> list[dict[str, Any]]:
        (text,) = self.wire.room(AGENT, "Tools", timeout_s=timeout_s)
        return list(json.loads(text))

    def trace(self, call: str) -> dict[str, Any]:
        """What a call of the user's really did. Raises RemoteError.

        "last" is this session's last one; of a session that would only begin now, the user's.
        """
        is_here = call == "last" and not self._options["fresh"]
        asked = {"call": call, "session": self.session} if is_here else {"call": call}
        (text,) = self.wire.room(MONITOR, "Trace", json.dumps(asked))
        return dict(json.loads(text))

    def models(self) -> list[dict[str, Any]]:
        """The models there are; only an administrator may ask."""
        (text,) = self.wire.room(INFERENCE, "Models", timeout_s=START_TIMEOUT_S)
        return list(json.loads(text))

    def use_model(self, name: str) -> None:
        self.wire.room(INFERENCE, "UseModel", name, timeout_s=600)

    def _in_session(self, member: str, *arguments: str, fds: tuple[int, ...] = ()) -> list[Any]:
        """Call within the session; one that the agent no longer knows, after a restart, is opened again."""
        try:
            return self.wire.room(AGENT, member, self.session, *arguments, fds=fds, timeout_s=START_TIMEOUT_S)
        except RemoteError as error:
            if error.error_name != f"{PREFIX}NoSuchSession":
                raise
            self._session = None
        return self.wire.room(AGENT, member, self.session, *arguments, fds=fds, timeout_s=START_TIMEOUT_S)
