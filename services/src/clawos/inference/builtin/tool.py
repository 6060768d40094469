"""A tool as the model's caller describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class ToolSpec:
    """One tool: its name, what it does, the JSON Schema of its arguments, and the words that must ask for
    it.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] = field(hash=False)
    verbs: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Self:
        """Read {"name", "description", "parameters", "verbs"}; the last two may be left out."""
        name = obj.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError("tool: name: must be a text that is not empty")
        description = obj.get("description", "")
        if not isinstance(description, str):
            raise ValueError(f"tool {name}: description: must be a text")
        parameters = obj.get("parameters") or {}
        if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
            raise ValueError(f"tool {name}: parameters: must be a JSON Schema of type object")
        for key, schema in parameters.get("properties", {}).items():
            if not isinstance(schema, Mapping):
                raise ValueError(f"tool {name}: parameters.properties.{key}: must be a JSON Schema")
        verbs = obj.get("verbs") or ()
        if isinstance(verbs, str) or not all(isinstance(verb, str) for verb in verbs):
            raise ValueError(f"tool {name}: verbs: must be a list of texts")
        return cls(name, description, parameters, tuple(verbs))

    @property
    def properties(self) -> Mapping[str, Mapping[str, Any]]:
        """The arguments' schemas by name, in the order of the manifest."""
        found: Mapping[str, Mapping[str, Any]] = self.parameters.get("properties", {})
        return found

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the arguments that a call must have."""
        return tuple(self.parameters.get("required", ()))

    @property
    def first_slot(self) -> str | None:
        """The argument to ask for when a request names the tool and nothing else."""
        return self.required[0] if self.required else next(iter(self.properties), None)


def wants_pattern(schema: Mapping[str, Any]) -> bool:
    """Whether an argument is a file name pattern, so that `pdf files` may become `*.pdf`."""
    return "pattern such as" in str(schema.get("description", ""))
