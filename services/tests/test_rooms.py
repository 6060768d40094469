"""A room is a folder: its ten places follow from its name, and it imports only core and itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from clawos.core.names import Room

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "services/src/clawos"
ROOMS = [Room(p.parent.name) for p in sorted(SOURCE.glob("*/interface.py"))]
PACKAGES = [p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists()]

each_room = pytest.mark.parametrize("room", ROOMS, ids=lambda r: r.name)


def test_there_are_rooms() -> None:
    assert {r.name for r in ROOMS} >= {"agent", "inference", "isolator"}


def service_section(room: Room) -> dict[str, str]:
    """The [Service] settings of a room's unit; of a setting that stands there twice, the first."""
    text = (SOURCE / room.name / "system" / room.unit).read_text()
    settings: dict[str, str] = {}
    for line in text.split("[Service]")[1].split("[Install]")[0].splitlines():
        key, sign, value = line.partition("=")
        if sign and not key.startswith("#"):
            settings.setdefault(key, value)
    return settings


@each_room
def test_ten_places(room: Room) -> None:
    system = SOURCE / room.name / "system"
    service = service_section(room)
    assert service["User"] == room.user
    assert service["BusName"] == room.bus_name
    assert room.package in service["ExecStart"]
    assert service.get("StateDirectory", f"clawos/{room.name}").split()[0] == str(
        room.state_dir
    ).removeprefix("/var/lib/")
    assert (system / room.config_file.name).exists()
    assert (system / f"{room.apparmor_profile}.apparmor").exists()
    assert room.bus_name in (system / f"{room.bus_name}.conf").read_text()
    assert (SOURCE.parents[2] / room.tests).is_dir()
    assert (SOURCE.parents[2] / room.doc).exists()
    assert room.object_path == "/" + room.bus_name.replace(".", "/")


@each_room
def test_unit_is_watched_and_restarted(room: Room) -> None:
    service = service_section(room)
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] in ("on-failure", "always")


@each_room
def test_bus_activation_is_left_to_systemd(room: Room) -> None:
    text = (SOURCE / room.name / "system" / f"{room.bus_name}.service").read_text()
    assert f"Name={room.bus_name}" in text
    assert f"SystemdService={room.unit}" in text


@each_room
def test_bus_policy_lets_only_the_room_own_its_name(room: Room) -> None:
    text = (SOURCE / room.name / "system" / f"{room.bus_name}.conf").read_text()
    owners = re.findall(r'<policy user="([^"]+)">\s*<allow own="([^"]+)"', text)
    assert (room.user, room.bus_name) in owners


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_only_core_and_itself(package: str) -> None:
    foreign = []
    for file in (SOURCE / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                parts = name.split(".")
                if parts[0] == "clawos" and len(parts) > 1 and parts[1] not in ("core", package):
                    foreign.append(f"{file.name}: {name}")
    assert foreign == []
