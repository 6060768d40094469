"""Patterns that cannot take long, whatever text somebody hands them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants, _parser  # type: ignore[attr-defined] # what re.compile itself makes of a pattern
from typing import Any

SUBJECT_MAX = 1024
"""Of a text, so much is looked at."""
_NAME_MAX = 255
STEPS_MAX = 1 << 14
"""What a pattern may take from one place of the text; it is tried from each."""
GLOB_STEPS_MAX = 1 << 20
"""The same for one that is tried from the beginning only."""
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)
_BACK = (_constants.GROUPREF, _constants.GROUPREF_EXISTS)


def check_pattern(pattern: str, steps_max: int = STEPS_MAX) -> None:
    """Raises ValueError for what is no pattern, or might take long."""
    try:
        parsed = _parser.parse(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if _steps(parsed, inside=False) > steps_max:
        raise ValueError(f"{pattern!r} might take long: fewer repeats, or bounded ones")


def _steps(parsed: Iterable[Any], *, inside: bool) -> int:
    """Ways in which the repeats of a pattern can share a text."""
    ways = 1
    for operator, value in parsed:
        if operator in _REPEATS:
            least, most, below = value
            if inside and most != least:
                raise ValueError("a repeat within a repeat might take long")
            # A class without the slash is a name's: [^/]*
            longest = _NAME_MAX if _is_name(below) else SUBJECT_MAX
            width = min(int(most), longest) - int(least) + 1
            ways *= (width if most > 1 else 1) * _steps(below, inside=inside or most > 1)
        elif operator in _BACK:
            raise ValueError("a pattern that refers back might take long")
        elif operator is _constants.BRANCH:
            ways *= max(_steps(branch, inside=inside) for branch in value[1])
        elif operator is _constants.SUBPATTERN:
            ways *= _steps(value[3], inside=inside)
        elif operator in (_constants.ASSERT, _constants.ASSERT_NOT):
            ways *= _steps(value[1], inside=inside)
    return ways


def _is_name(below: Any) -> bool:
    return list(below) == [(_constants.NOT_LITERAL, ord("/"))]


def glob_pattern(glob: str) -> str:
    """`*` is anything but a slash, `**` anything, `?` one character but a slash."""
    meaning = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*|\*|\?)", glob)
    return "(?s)" + "".join(meaning.get(piece, re.escape(piece)) for piece in pieces) + r"\Z"


def printable(text: str, length_max: int = 300) -> str:
    """For a message: what others chose, on one line and not too long."""
    if len(text) > length_max:
        text = text[:length_max] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
