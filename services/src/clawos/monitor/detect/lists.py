"""Named lists: "@name" among values stands for what the list holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from clawos.monitor.detect.language import Condition, Pattern, Scalar, Value

Lists = Mapping[str, tuple[Scalar, ...]]


def resolved(pattern: Pattern, lists: Lists) -> Pattern:
    """The pattern with values in the place of names. Raises ValueError."""
    return Pattern(
        kinds=pattern.kinds,
        scope=pattern.scope,
        match=_table(pattern.match, lists, "match"),
        any=tuple(_table(table, lists, f"any[{n}]") for n, table in enumerate(pattern.any)),
        unless=tuple(_table(table, lists, f"unless[{n}]") for n, table in enumerate(pattern.unless)),
    )


def _table(table: Mapping[str, Value], lists: Lists, where: str) -> dict[str, Value]:
    found = {}
    for name, value in table.items():
        try:
            found[name] = _value(value, lists)
        except ValueError as error:
            raise ValueError(f"{where}.{name}: {error}") from None
    return found


def _value(value: Any, lists: Lists) -> Any:
    if isinstance(value, tuple):
        return _expand(value, lists)
    if isinstance(value, Condition):
        changed = {
            field: _value(getattr(value, field), lists)
            for field in ("one_of", "prefix", "suffix", "contains", "glob", "cidr", "is_not")
        }
        return msgspec.structs.replace(value, **changed)
    return value


def _expand(words: Sequence[Scalar], lists: Lists) -> tuple[Scalar, ...]:
    found: list[Scalar] = []
    for word in words:
        if isinstance(word, str) and word.startswith("@"):
            if word[1:] not in lists:
                raise ValueError(f"there is no list {word[1:]!r}")
            found += lists[word[1:]]
        else:
            found.append(word)
    return tuple(found)
