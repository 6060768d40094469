"""A call in words for the person who decides: made from the parsed call, never from a model's text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Longer values are cut, and the text says by how much; a shell command (at most 4096) is always shown whole.
MAX_VALUE_CHARACTERS = 4_096

# Invisible, yet "printable" by their Unicode category: joiners, fillers and variation selectors.
_INVISIBLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
_INVISIBLE |= {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


def visible(text: str) -> str:
    """The text with control, bidirectional, zero-width and other unseen characters spelled out."""
    return "".join(_shown(c) for c in text)


def summary(tool: str, arguments: Mapping[str, Any]) -> str:
    """One line, such as `file.write path="a.txt" text="two\\nlines"`."""
    return " ".join([tool, *(f"{key}={_value(value)}" for key, value in arguments.items())])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    kept, cut = value[:MAX_VALUE_CHARACTERS], len(value) - MAX_VALUE_CHARACTERS
    quoted = '"' + visible(kept.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    return f"{quoted} (and {cut} more characters)" if cut > 0 else quoted


def _shown(c: str) -> str:
    if c.isprintable() and ord(c) not in _INVISIBLE:
        return c
    if c in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[c]
    code = ord(c)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
