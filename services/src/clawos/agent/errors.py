"""What a caller of the agent can act on."""

from __future__ import annotations

from clawos.core.errors import ClawError


class NoSuchSession(ClawError):
    """There is no such session, or it belongs to another user; the caller is not told which."""

    name = "NoSuchSession"


class SessionFrozen(ClawError):
    """The monitor has frozen the session: it makes no call until an administrator lets it."""

    name = "SessionFrozen"

    def __init__(self, session: str, reason: str) -> None:
        super().__init__(
            f"this session is frozen: {reason}",
            f"an administrator can let it go on: claw session thaw {session}",
            session=session,
        )


class ToolUnknown(ClawError):
    """No manifest has this name."""

    name = "ToolUnknown"


class ArgumentsInvalid(ClawError):
    """The arguments of a call do not fit the tool's schema."""

    name = "ArgumentsInvalid"


class StepLimit(ClawError):
    """The model kept calling tools for longer than a turn allows."""

    name = "StepLimit"


class ModelFailed(ClawError):
    """The model's answer ended before it was complete."""

    name = "ModelFailed"


class TransitionUndeclared(ClawError):
    """A session was about to enter a state that the table does not allow: a bug, stopped in time."""

    name = "TransitionUndeclared"


class StoreTooNew(ClawError):
    """The conversation store was written by a later version of ClawOS."""

    name = "StoreTooNew"
