"""Finds where a call opens in what a model writes, and reads the calls that were written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from clawos.inference.dialects.markers import Marker
from clawos.inference.errors import GrammarInvalid

Opened = tuple[Marker, bytes]


class Watch:
    """Passes text on, but holds back what may be the beginning of a marker."""

    def __init__(self, markers: Sequence[Marker]) -> None:
        self._markers = {marker.opens.encode(): marker for marker in markers if marker.opens}
        self._bare = next((marker for marker in markers if not marker.opens), None)
        self._held = b""
        self._begun = False

    def is_marker(self, piece: bytes) -> bool:
        return piece in self._markers

    def take(self, piece: bytes) -> tuple[bytes, Opened | None]:
        """Returns what is text for sure, and the marker that has opened a call with the bytes after it."""
        self._held += piece
        found = [(at, word) for word in self._markers if (at := self._held.find(word)) >= 0]
        if found:
            at, word = min(found)
            text, tail = self._held[:at], self._held[at + len(word) :]
            self._held = b""
            return text.rstrip() if not self._begun else text, (self._markers[word], tail)
        stripped = self._held.lstrip()
        if self._bare and not self._begun and stripped.startswith(b"{"):
            self._held = b""
            return b"", (self._bare, stripped)
        keep = self._kept()
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._begun = self._begun or bool(text.strip())
        return text, None

    def _kept(self) -> int:
        """How many of the last bytes may become a marker."""
        longest = max(map(len, self._markers), default=1) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(word.startswith(self._held[-count:]) for word in self._markers):
                return count
        return 0

    def rest(self) -> bytes:
        """What was held back and turned out to be text."""
        text, self._held = self._held, b""
        return text


def read(written: str, marker: Marker) -> list[tuple[str, dict[str, Any]]]:
    """The calls in what follows a marker, as (tool, arguments). Raises GrammarInvalid."""
    try:
        if marker.shape == "function":
            name, _, rest = written.partition(">")
            return [(name, json.loads(rest.strip().removesuffix(marker.closes)))]
        objects = json.loads(written) if marker.shape == "array" else _objects(written, marker)
        return [(call["name"], call[marker.arguments]) for call in objects]
    except (ValueError, KeyError, TypeError):
        raise GrammarInvalid("the model's call broke off", "ask again in other words") from None


def _objects(written: str, marker: Marker) -> list[dict[str, Any]]:
    decoder = json.JSONDecoder()
    objects = []
    rest = written.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        objects.append(value)
        rest = rest[end:].strip().removeprefix(marker.closes).strip().removeprefix(marker.opens).strip()
    return objects
