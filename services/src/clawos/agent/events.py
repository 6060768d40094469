"""Events of a turn as its caller reads them, and of a model's answer as we read it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

from clawos.agent.manifest import Safety
from clawos.agent.states import State
from clawos.core.parse import Record


class Status(StrEnum):
    """How a turn ended."""

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    APPROVAL_NEEDED = "approval_needed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    PLANNED = "planned"


class Event(Record, frozen=True, tag_field="type"):
    """Base of what a turn tells its caller."""

    turn: str


class StateChanged(Event, frozen=True, tag="state"):
    state: State


class Text(Event, frozen=True, tag="text"):
    text: str


class CallAnnounced(Event, frozen=True, tag="tool_call"):
    call: str
    tool: str
    args: dict[str, Any]
    safety: Safety = msgspec.field(name="class")
    summary: str


class ApprovalRequired(CallAnnounced, frozen=True, tag="approval_required"):
    """The call that was announced waits for the user's word. `asks` is the manifest's: `restart {unit}`."""

    asks: str


class CallEdited(CallAnnounced, frozen=True, tag="call_edited"):
    """The user put other arguments in place; with these the call runs."""


class ToolOutput(Event, frozen=True, tag="tool_output"):
    """A piece of output, as the tool wrote it; whoever shows it on a terminal escapes it."""

    call: str
    text: str


class ToolResult(Event, frozen=True, tag="tool_result"):
    call: str
    tool: str
    ok: bool
    exit_code: int | None
    signal: int | str | None
    limit: str | None
    output: str
    truncated: bool
    wall_s: float


class Failure(Event, frozen=True, tag="error"):
    name: str
    message: str
    hint: str


class Done(Event, frozen=True, tag="done"):
    status: Status
    model: str
    prompt_tokens: int
    completion_tokens: int
    model_s: float
    tool_s: float
    wall_s: float


class _ModelEvent(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of what the inference service tells us. Fields that a later one adds are passed over."""


class ModelText(_ModelEvent, frozen=True, tag="text"):
    text: str


class ModelCall(_ModelEvent, frozen=True, tag="tool_call"):
    tool: str
    args: dict[str, Any]


class ModelError(_ModelEvent, frozen=True, tag="error"):
    name: str
    message: str
    hint: str = ""


class ModelDone(_ModelEvent, frozen=True, tag="done"):
    finish: Literal["stop", "length", "tool_calls", "cancelled"]
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dialect: str | None = None


ModelEvent = ModelText | ModelCall | ModelError | ModelDone
"""Tagged by `type`."""
