"""Argument vectors: whatever a value holds, it is one element and where it belongs."""

from __future__ import annotations

import string
import tomllib
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawos.agent.errors import ArgumentsInvalid
from clawos.agent.manifest import Manifest, parameters
from clawos.agent.template import Argv, expand, placeholders, required_placeholders

names = st.sampled_from(["path", "count", "unit", "text", "a_b"])
literals = st.text(st.characters(codec="utf-8", exclude_characters="{}\0"), min_size=1, max_size=12)
elements = literals | names.map("{{{}}}".format)
templates = st.lists(elements | st.lists(elements, min_size=1, max_size=3).map(tuple), max_size=6).map(
    lambda rest: ("/bin/x", *rest)
)
# What a model may send: options, blanks, quotes, placeholders, separators.
values = st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.sampled_from(
    ["-rf", "--", "a b", "{path}", "$(id)", "a;b", "\n", "'\"", "--option=x", "*", ""]
)


@given(templates, st.dictionaries(names, values))
def test_one_value_is_one_element_in_its_place(argv: Argv, given_values: dict[str, str]) -> None:
    if not required_placeholders(argv) <= set(given_values):
        with pytest.raises(ArgumentsInvalid):
            expand(argv, given_values)
        return
    expected = []
    for part in argv:
        group = (part,) if isinstance(part, str) else part
        keys = {element[1:-1] for element in group if element.startswith("{")}
        if keys <= set(given_values):
            expected += [given_values[e[1:-1]] if e.startswith("{") else e for e in group]
    assert expand(argv, given_values) == tuple(expected)


@given(values)
def test_placeholder_in_a_value_stays_text(value: str) -> None:
    assert expand(("/bin/x", "{path}", "{text}"), {"path": "{text}", "text": value}) == (
        "/bin/x",
        "{text}",
        value,
    )


@pytest.mark.parametrize(
    ("value", "word"), [(True, "true"), (False, "false"), (3, "3"), (-1, "-1"), (0.5, "0.5"), ("", "")]
)
def test_value_as_a_word(value: str | float | bool, word: str) -> None:
    assert expand(("/bin/x", "{a_b}"), {"a_b": value})[1] == word


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_value_that_no_argument_vector_holds(value: str) -> None:
    with pytest.raises(ArgumentsInvalid):
        expand(("/bin/x", "{a_b}"), {"a_b": value})


toml_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
GOOD: dict[str, Any] = {
    "name": "a.b",
    "description": "A tool.",
    "class": "safe",
    "argv": ["/bin/x", "--", "{path}", ["-n", "{count}"]],
    "quota": "small",
    "seccomp": "shell",
    "arguments": {
        "type": "object",
        "additionalProperties": False,
        "required": ["path"],
        "properties": {
            "path": {"type": "string", "maxLength": 9},
            "count": {"type": "integer", "minimum": 1},
        },
    },
}


def _holds(manifest: Manifest) -> None:
    """What every manifest that exists guarantees."""
    assert isinstance(manifest.argv[0], str)
    assert manifest.argv[0].startswith("/")
    assert placeholders(manifest.argv) == set(manifest.arguments.properties)
    assert required_placeholders(manifest.argv) <= set(manifest.arguments.required)
    assert parameters(manifest)["additionalProperties"] is False
    assert set(manifest.name) <= set(string.ascii_lowercase + string.digits + "._-")


@given(st.sampled_from(sorted(GOOD)), toml_values)
def test_any_value_in_any_field_is_valid_or_refused(field: str, value: Any) -> None:
    with suppress(msgspec.ValidationError):
        _holds(msgspec.convert({**GOOD, field: value}, Manifest))


@given(
    st.lists(elements | st.lists(elements, max_size=3), max_size=5),
    st.dictionaries(names, st.sampled_from([{"type": "string", "maxLength": 3}, {"type": "boolean"}])),
    st.lists(names, max_size=3),
)
def test_any_template_is_consistent_or_refused(
    argv: list[Any], properties: dict[str, Any], required: list[str]
) -> None:
    arguments = {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }
    with suppress(msgspec.ValidationError):
        _holds(msgspec.convert({**GOOD, "argv": ["/bin/x", *argv], "arguments": arguments}, Manifest))


@given(st.text(max_size=200))
def test_any_text_is_refused_in_our_own_words(text: str) -> None:
    with pytest.raises((tomllib.TOMLDecodeError, msgspec.ValidationError)):
        msgspec.convert(tomllib.loads(text), Manifest)
