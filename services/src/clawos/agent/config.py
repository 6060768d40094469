"""Settings of the agent; `/etc/clawos/agent.toml` overrides what stands here."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from clawos.core.names import POLICY_DIR, Room
from clawos.core.parse import Record

ROOM = Room("agent")

Count = Annotated[int, Meta(ge=1, le=100_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Bytes = Annotated[int, Meta(ge=256, le=64 * 1024 * 1024)]


class AgentConfig(Record, frozen=True):
    """Every limit is a number here, with its reason."""

    tool_directories: tuple[str, ...] = (str(POLICY_DIR / "tools"), "/etc/clawos/tools.d")
    """Later ones win over earlier ones of the same tool name."""

    max_steps: Count = 8
    """Times that a model may look at results and call again: a model that loops is stopped."""

    turn_timeout_s: Seconds = 600
    """Wall clock of one turn, not counting the wait for an approval: small machines are slow, not endless."""

    approval_timeout_s: Seconds = 300
    """How long a call waits for its yes or no."""

    max_text_bytes: Bytes = 65_536
    """Longest request."""

    output_keep_bytes: Bytes = 16_384
    """Of a tool's output, this much goes to the model and the history; the user sees all of it."""

    context_messages: Count = 40
    context_bytes: Bytes = 49_152
    """What of the conversation is handed to the model; a turn is handed over whole or not at all."""

    history_messages: Count = 500
    """How many messages `History` answers with."""

    sessions_per_user: Count = 32
    """Named sessions that one user may have open."""

    turns_per_session: Count = 1000
    """Older ones are forgotten."""

    closed_sessions_per_user: Count = 16
    """Conversations that a fresh session of the same name replaced and that are still kept."""
