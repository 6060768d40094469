"""From the tools' JSON Schemas to a constraint on the calls: bounded, closed, and checked before use."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import fastjsonschema
import llguidance

from clawos.inference.chat import Tool
from clawos.inference.dialects.markers import DEFAULT, Marker
from clawos.inference.errors import GrammarInvalid

MAX_STRING = 1024
MAX_ITEMS = 32
MAX_CALLS = 4
MAX_DEPTH = 16
# References could lead out of the schema, even to the network.
_REFUSED = ("$ref", "$dynamicRef", "$recursiveRef")
# As json.dumps writes and chat templates show; free spacing lets a weak model write spaces for ever.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# All that fastjsonschema was seen to raise for schemas that are none.
_MALFORMED = (
    fastjsonschema.JsonSchemaDefinitionException,
    re.PatternError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    SyntaxError,
)


def bounded(schema: Any, depth: int = 0) -> Any:
    """The schema with an end to every string and list, and no properties but the named ones."""
    if depth > MAX_DEPTH:
        raise GrammarInvalid(f"a tool's schema is nested deeper than {MAX_DEPTH}", "flatten the schema")
    if isinstance(schema, list):
        return [bounded(part, depth + 1) for part in schema]
    if not isinstance(schema, dict):
        return schema
    for word in _REFUSED:
        if word in schema:
            raise GrammarInvalid(f"a tool's schema uses {word}", "write the schema out in place")
    result = {key: _inside(key, value, depth) for key, value in schema.items()}
    kind = schema.get("type")
    if kind == "string" and not {"enum", "const"} & schema.keys():
        result["maxLength"] = min(MAX_STRING, schema.get("maxLength", MAX_STRING))
    if kind == "array":
        result["maxItems"] = min(MAX_ITEMS, schema.get("maxItems", MAX_ITEMS))
    if kind == "object":
        result.setdefault("properties", {})
        result["additionalProperties"] = False
    return result


def _inside(key: str, value: Any, depth: int) -> Any:
    if key in ("properties", "patternProperties") and isinstance(value, dict):
        return {name: bounded(part, depth + 1) for name, part in value.items()}
    if key in ("enum", "const", "default", "examples", "required", "description"):
        return value
    return bounded(value, depth + 1)


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments, bounded. Raises GrammarInvalid."""
    parameters = tool.parameters or {}
    if parameters.get("type", "object") != "object":
        raise GrammarInvalid(f"tool {tool.name}: parameters: not an object", "correct the tool's schema")
    try:
        result: dict[str, Any] = bounded({**parameters, "type": "object"})
    except TypeError as error:
        raise GrammarInvalid(f"tool {tool.name}: {error}", "correct the tool's schema") from None
    return result


def grammar(tools: Sequence[Tool], marker: Marker, token_ids: Mapping[str, int]) -> str:
    """A grammar for all that may follow the marker. `token_ids`: marker texts that are one control token."""

    def literal(text: str) -> str:
        return f"<[{token_ids[text]}]>" if text in token_ids else json.dumps(text, ensure_ascii=False)

    schemas = {tool.name: arguments_schema(tool) for tool in tools}
    if marker.shape == "function":
        names = " | ".join(f"call_{i}" for i in range(len(schemas)))
        rules = [f"start: {names}"]
        for i, (name, schema) in enumerate(schemas.items()):
            body = json.dumps({**schema, "x-guidance": _SPACING})
            rules.append(f"call_{i}: {json.dumps(name + '>')} args_{i} {literal(marker.closes)}")
            rules.append(f"args_{i}: %json {body}")
        return "\n".join(rules)
    call = {"anyOf": [_call_schema(name, schema, marker.arguments) for name, schema in schemas.items()]}
    if marker.shape == "array":
        array = {"type": "array", "items": call, "minItems": 1, "maxItems": MAX_CALLS, "x-guidance": _SPACING}
        return f'start: (" ")? calls\ncalls: %json {json.dumps(array)}'
    body = f"object: %json {json.dumps({**call, 'x-guidance': _SPACING})}"
    if not marker.closes:
        return f"start: object\n{body}"
    opens, closes = literal(marker.opens), literal(marker.closes)
    more = f'(("\\n")? {opens} call){{0,{MAX_CALLS - 1}}}'
    return f'start: call {more}\ncall: ("\\n")? object ("\\n")? {closes}\n{body}'


def _call_schema(name: str, arguments: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, key: arguments},
        "required": ["name", key],
        "additionalProperties": False,
    }


def check(tools: Sequence[Tool], marker: Marker = DEFAULT) -> None:
    """Refuse what cannot become a constraint, before a model is touched. Raises GrammarInvalid."""
    if not tools:
        return
    for tool in tools:
        validator(json.dumps(arguments_schema(tool)))
    lark = llguidance.LLMatcher.grammar_from_lark(grammar(tools, marker, {}))
    failed, words = llguidance.LLMatcher.validate_grammar_with_warnings(lark)
    if failed:
        raise GrammarInvalid(f"tools: {words[0].splitlines()[0]}", "correct the tool's schema")


@functools.lru_cache(maxsize=1024)
def validator(schema: str) -> Any:
    """A validator of our own: every engine for constraints has holes. Raises GrammarInvalid."""
    try:
        return fastjsonschema.compile(json.loads(schema), use_default=False)
    except _MALFORMED as error:
        raise GrammarInvalid(
            f"a tool's schema does not compile: {error}", "correct the tool's schema"
        ) from None


def validate(tool: Tool, arguments: Any) -> None:
    """Check a call's arguments. Raises GrammarInvalid."""
    try:
        validator(json.dumps(arguments_schema(tool)))(arguments)
    except fastjsonschema.JsonSchemaValueException as error:
        raise GrammarInvalid(
            f"the model's call of {tool.name} does not fit its schema: {error.message}",
            "ask again in other words",
        ) from None
