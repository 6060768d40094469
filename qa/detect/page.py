"""docs/detection.md from the tables: `python -m qa.detect.page` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qa.detect.table import CONTROL, SUITES, Table, load

PAGE = Path("docs/detection.md")
HEAD = """# What the monitor is judged by

The acts of two suites that others wrote to try monitors with, done anew by qa/detect in a booted image: each
as root in a followed cgroup of its own, with a check that it took place. An alert finds it if it comes from
that cgroup within five seconds and names a technique of the act (MITRE ATT&CK), its parent or its child. At
least 95 % of those that took place are to be found, and none of the controls at the end may bring an alert.
What a rule only notes, with the severity `info`, is no alert here.
What is not run has its reason. This page is written by `python -m qa.detect.page`; a test compares the two.
"""
TITLES = {
    "falco": "Falco's event-generator",
    "atomic": "Atomic Red Team, Linux",
    CONTROL: "Controls",
}


def page() -> str:
    parts = [HEAD]
    for suite in (*SUITES, CONTROL):
        table = load(suite)
        parts.append(f"\n## {TITLES[suite]}\n\n")
        if suite in SUITES:
            parts.append(f"{SUITES[suite]} acts, of which {len(table.act)} are run.\n\n")
        parts += _acts(table)
        parts += _not_run(table)
    return "".join(parts)


def _acts(table: Table) -> Iterator[str]:
    yield "| act | what it does | techniques |\n|---|---|---|\n"
    for act in table.act:
        yield f"| {act.id} | {act.does} | {', '.join(act.techniques)} |\n"


def _not_run(table: Table) -> Iterator[str]:
    if table.not_run:
        yield "\n| not run | why |\n|---|---|\n"
    for group in table.not_run:
        yield f"| {', '.join(group.ids.split())} | {' '.join(group.why.split())} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
