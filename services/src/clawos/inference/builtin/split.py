"""Where the words of a request stand.

A word is what a value can begin and end with: `/etc/hosts`, `nginx.service` and `12*7` are one each, and the
punctuation around one is not part of it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_CHUNK = re.compile(r"\S+")
_OPENING = "\"'([{<"
_CLOSING = "\"')]}>.,;:!?"
_POSSESSIVE = re.compile(r"[A-Za-z0-9)](?P<tail>'s)$")


class Word(NamedTuple):
    """A half-open range of characters."""

    start: int
    end: int


def words(text: str) -> list[Word]:
    """The words of a text and the punctuation between them, in order and without the spaces."""
    found: list[Word] = []
    for chunk in _CHUNK.finditer(text):
        found += _parts(text, chunk.start(), chunk.end())
    return found


def _parts(text: str, start: int, end: int) -> list[Word]:
    """A word with what stands around it: opening marks, the word, its 's, closing marks."""
    before: list[Word] = []
    while end - start > 1 and text[start] in _OPENING:
        before.append(Word(start, start + 1))
        start += 1
    after: list[Word] = []
    while end - start > 1 and text[end - 1] in _CLOSING and not _is_dots(text[start:end]):
        after.append(Word(end - 1, end))
        end -= 1
    possessive = _POSSESSIVE.search(text[start:end])
    if possessive and end - start > 2:
        after.append(Word(end - 2, end))
        end -= 2
    return [*before, Word(start, end), *reversed(after)]


def _is_dots(word: str) -> bool:
    """`.` and `..` are names of directories, not ends of sentences."""
    return word in (".", "..")
