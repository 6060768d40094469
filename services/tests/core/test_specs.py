"""What docs/specs/bus.md says of each room, and what the room's file says."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2]
FACES = sorted((SERVICES / "src" / "clawos").glob("*/system/org.clawos.*.xml"))


@pytest.mark.parametrize("face", FACES, ids=[face.stem for face in FACES])
def test_members_are_those_of_the_specification(face: Path) -> None:
    spec = (SERVICES.parent / "docs" / "specs" / "bus.md").read_text()
    section = spec.split(f"## {face.stem}")[1].split("\n## ")[0]
    written = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    node = ET.fromstring(face.read_text())
    (interface,) = [i for i in node.iter("interface") if i.get("name") == face.stem]
    assert {m.get("name") for m in interface.iter("method")} == written
