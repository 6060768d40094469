"""Validation against the part of JSON Schema that tool manifests use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clawos.inference.builtin.tool import ToolSpec

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def problem(tool: ToolSpec, arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first thing wrong with the arguments, as (argument, reason); None when they are valid."""
    for key in tool.required:
        if key not in arguments:
            return key, "is missing"
    for key, value in arguments.items():
        if key not in tool.properties:
            return key, "is not an argument of this tool"
        reason = _value_problem(tool.properties[key], value)
        if reason:
            return key, reason
    return None


def _value_problem(schema: Mapping[str, Any], value: Any) -> str:
    kind = schema.get("type")
    if kind is not None:
        expected = _TYPES.get(kind)
        if expected is None:
            return f"has a type that is not supported: {kind}"
        if not isinstance(value, expected) or (isinstance(value, bool) and kind != "boolean"):
            return f"is not of type {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"is not one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, str):
        return _text_problem(schema, value)
    if "minimum" in schema and value < schema["minimum"]:
        return f"is below {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"is above {schema['maximum']}"
    return ""


def _text_problem(schema: Mapping[str, Any], value: str) -> str:
    if len(value) < schema.get("minLength", 0):
        return "is too short"
    if len(value) > schema.get("maxLength", len(value)):
        return f"is longer than {schema['maxLength']} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return "does not have the right form"
    return ""
