"""What docs/services/monitor.md says of the fields that rules may name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clawos.monitor.detect.fields import OWN, of_kind

PAGE = (Path(__file__).parents[3] / "docs/services/monitor.md").read_text()
MARKS = {"number": "#", "flag": "?", "list": "[]", "text": ""}


@pytest.mark.parametrize("kind", OWN)
def test_the_page_has_what_a_kind_has_of_its_own(kind: str) -> None:
    fields = ", ".join(f"`{name}`{MARKS[kind_of]}" for name, kind_of in OWN[kind].items())
    assert f"\n| {kind} | {fields} |\n" in PAGE


def test_the_page_has_what_every_event_has() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE[PAGE.index("Every event has") : PAGE.index("; of files")]))
    assert told == set(of_kind("exit")) - set(OWN["exit"])
