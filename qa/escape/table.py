"""docs/escape.md from the rows: `python -m qa.escape.table` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qa.escape.rows import CHAPTERS, Row

PAGE = Path("docs/escape.md")
HEAD = """# What a hostile tool meets

Every act is one test of `qa/escape`, run in the booted image through `shell.run`: inside the sandbox and, as
the positive control, outside as root. *Outside* is what it gets there: it works, or the kernel finds fault
with arguments that were chosen so that the machine survives. The layer is the one that answers; most acts
have more layers before them.
This page is written by `python -m qa.escape.table`; a test compares the two.
"""


def page() -> str:
    parts = [HEAD]
    for title, rows in CHAPTERS.items():
        parts.append(f"\n## {title}\n\n| tried | inside | outside | layer |\n|---|---|---|---|\n")
        parts += _lines(rows)
    return "".join([*parts, "\n", Path(__file__).with_name("beside.md").read_text()])


def _lines(rows: list[Row]) -> Iterator[str]:
    """Rows with the same answers share a line, in the order of the first."""
    joined: dict[tuple[object, ...], list[str]] = {}
    for row in rows:
        joined.setdefault((row.inside, row.outside, row.layer), []).append(row.act)
    for (inside, outside, layer), acts in joined.items():
        answers = ", ".join(outside) if isinstance(outside, tuple) and outside else "much"
        yield f"| {', '.join(_short(acts))} | {inside} | {answers} | {layer} |\n"


def _short(acts: list[str]) -> list[str]:
    """`socket 2`, `socket 3`, … in a row are a range."""
    found: list[str] = []
    for act in acts:
        name, _, number = act.rpartition(" ")
        before = found[-1] if found else ""
        if (
            number.isdigit()
            and before.startswith(f"{name} ")
            and before.rpartition("–")[2].split()[-1] == str(int(number) - 1)
        ):
            found[-1] = f"{before.partition('–')[0]}–{number}"
        else:
            found.append(act)
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
