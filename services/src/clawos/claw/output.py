"""How claw prints: JSON for programs, aligned columns for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

_COLOURS = {"ok": "32", "warn": "33", "fail": "1;31", "dim": "2", "strong": "1"}


def is_terminal() -> bool:
    """One that understands control sequences."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def coloured() -> bool:
    return is_terminal() and not os.environ.get("NO_COLOR")


def colour(text: str, name: str) -> str:
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if coloured() else text


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns under a head; the last one is not padded."""
    rows = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    print(colour(_row(head, widths), "strong"))
    for row in rows:
        print(_row(row, widths))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def size(size_bytes: float | None) -> str:
    """A size in the units that people use."""
    if size_bytes is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit in ("B", "kB") else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def harmless(text: str) -> str:
    """Names and sentences that others chose, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
