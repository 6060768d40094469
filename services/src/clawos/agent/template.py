"""From an argv template and the values of a call to the argument vector.

An element is either taken as it stands or is exactly one placeholder, `{name}`; a value becomes exactly one
element, whatever it holds: nothing is split, joined or given to a shell. An inner list is a group, left out
as a whole when a placeholder in it has no value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from msgspec import Meta

from clawos.agent.errors import ArgumentsInvalid

Element = Annotated[str, Meta(pattern=r"^(\{[a-z][a-z0-9_]{0,31}\}|[^{}\x00]+)$", max_length=512)]
Group = Annotated[tuple[Element, ...], Meta(min_length=1, max_length=16)]
Argv = tuple[Element | Group, ...]

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def placeholder(element: str) -> str | None:
    """The argument that an element stands for, or None for a literal."""
    match = _PLACEHOLDER.fullmatch(element)
    return match[1] if match else None


def placeholders(argv: Argv) -> frozenset[str]:
    """Every argument that the template uses."""
    return frozenset(name for element in _flat(argv) if (name := placeholder(element)))


def required_placeholders(argv: Argv) -> frozenset[str]:
    """The arguments that stand outside of a group: without a value there is no command."""
    return placeholders(tuple(e for e in argv if isinstance(e, str)))


def named(text: str) -> frozenset[str]:
    """Every argument that a sentence names as `{name}`."""
    return frozenset(_PLACEHOLDER.findall(text))


def expand(argv: Argv, values: Mapping[str, str | int | float | bool]) -> tuple[str, ...]:
    """The argument vector. Raises ArgumentsInvalid for a value that no argument vector can hold."""
    words = {name: _word(name, value) for name, value in values.items()}
    if missing := required_placeholders(argv) - set(words):
        raise ArgumentsInvalid(f"{', '.join(sorted(missing))}: missing", "give every required argument")
    expanded: list[str] = []
    for part in argv:
        group = (part,) if isinstance(part, str) else part
        names = [placeholder(element) for element in group]
        if all(name is None or name in words for name in names):
            expanded += (
                element if name is None else words[name] for element, name in zip(group, names, strict=True)
            )
    return tuple(expanded)


def _flat(argv: Argv) -> Iterator[str]:
    for part in argv:
        if isinstance(part, str):
            yield part
        else:
            yield from part


def _word(name: str, value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    word = str(value)
    if "\0" in word:
        raise ArgumentsInvalid(f"{name}: holds a zero byte", "leave it out", argument=name)
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ArgumentsInvalid(f"{name}: is not valid Unicode text", "send UTF-8", argument=name) from None
    return word
