"""What a chat is asked with and answers with: the request as parsed, and the events of its stream."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from clawos.core.errors import BadRequest, ClawError
from clawos.core.parse import Record, from_json

# More than any context holds; it bounds what a bad caller costs us.
MAX_REQUEST_BYTES = 8 << 20

ToolName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ToolCall(Record, frozen=True):
    """A call as it stands in a conversation."""

    tool: str
    args: dict[str, Any]


class Message(Record, frozen=True, omit_defaults=True):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: list[ToolCall] = msgspec.field(default_factory=list)
    tool: str = ""


class Tool(Record, frozen=True):
    """A tool that the model may call."""

    name: ToolName
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    verbs: list[str] = msgspec.field(default_factory=list)


class ChatRequest(Record, frozen=True):
    """One request of `Chat`."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=4096)]
    tools: Annotated[list[Tool], msgspec.Meta(max_length=512)] = msgspec.field(default_factory=list)
    model: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=5)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] | None = None


def parse_request(text: str) -> ChatRequest:
    """Parse a request of `Chat`. Raises BadRequest."""
    if len(text) > MAX_REQUEST_BYTES:
        raise BadRequest(f"request: longer than {MAX_REQUEST_BYTES} bytes", "send less of the conversation")
    request = from_json(text, ChatRequest, "request")
    names = [tool.name for tool in request.tools]
    if len(set(names)) < len(names):
        raise BadRequest("request: tools: a name occurs twice", "give each tool once")
    return request


Finish = Literal["stop", "length", "tool_calls", "cancelled"]


class TextEvent(msgspec.Struct, frozen=True, tag="text"):
    """A piece of the answer."""

    text: str


class ToolCallEvent(msgspec.Struct, frozen=True, tag="tool_call"):
    """A call that is valid against its tool's schema."""

    tool: str
    args: dict[str, Any]


class ErrorEvent(msgspec.Struct, frozen=True, tag="error"):
    """What ended the chat before its time."""

    name: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: ClawError) -> ErrorEvent:
        return cls(type(error).name, error.message, error.hint)


class DoneEvent(msgspec.Struct, frozen=True, tag="done"):
    """The last event of every stream."""

    finish: Finish
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    load_s: float = 0.0
    prompt_s: float = 0.0
    completion_s: float = 0.0
    grammar_s: float = 0.0


Event = TextEvent | ToolCallEvent | ErrorEvent | DoneEvent
