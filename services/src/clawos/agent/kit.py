"""What every turn works with."""

from __future__ import annotations

from dataclasses import dataclass

from clawos.agent.config import AgentConfig
from clawos.agent.ports import Model, Sandbox, Store
from clawos.agent.registry import Registry


@dataclass(frozen=True)
class Kit:
    """The outside and the settings, handed to a turn as one."""

    model: Model
    sandbox: Sandbox
    store: Store
    registry: Registry
    config: AgentConfig
