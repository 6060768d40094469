"""What the README tells people to type exists, and CI runs its test command."""

from __future__ import annotations

import re
from pathlib import Path

README = Path("README.md").read_text()
MAKEFILE = Path("Makefile").read_text()


def test_every_make_target_exists() -> None:
    named = set(re.findall(r"^\s*(?:sudo )?make ([a-z-]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert {"run", "test"} <= named
    assert named <= targets


def test_ci_runs_the_test_command() -> None:
    assert re.search(r"^make test$", Path(".ci/run").read_text(), re.MULTILINE)


def test_links_lead_somewhere() -> None:
    pages = [Path("README.md"), *Path("docs").rglob("*.md")]
    dead = [
        f"{page}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []
