"""Whether a call may run: the tool's class, what was approved before, and whether anybody is there to ask.

Pure: the same question has the same answer, and the model's words are no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from clawos.agent.manifest import Safety


class Decision(StrEnum):
    """What happens with a call."""

    ALLOW = "allow"
    ASK = "ask"
    REFUSE = "refuse"  # it needs an approval and nobody can give one
    PLAN = "plan"  # it is only announced


def decide(safety: Safety, *, approved: bool, interactive: bool, plan: bool) -> Decision:
    """The decision for one call; `approved` says that an earlier "always" covers it."""
    if plan:
        return Decision.PLAN
    if safety is Safety.SAFE or approved:
        return Decision.ALLOW
    return Decision.ASK if interactive else Decision.REFUSE


_canonical = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True)
class Approvals:
    """What a user answered with "always" through one connection.

    For a cautious tool it counts for the tool; for a dangerous one for the very same arguments only.
    """

    tools: frozenset[str] = frozenset()
    calls: frozenset[tuple[str, bytes]] = frozenset()

    def cover(self, tool: str, safety: Safety, arguments: Mapping[str, Any]) -> bool:
        if safety is Safety.DANGEROUS:
            return (tool, _canonical.encode(arguments)) in self.calls
        return tool in self.tools

    def always(self, tool: str, safety: Safety, arguments: Mapping[str, Any]) -> Approvals:
        if safety is Safety.DANGEROUS:
            return replace(self, calls=self.calls | {(tool, _canonical.encode(arguments))})
        return replace(self, tools=self.tools | {tool})
