"""What claw asks of our services and of systemd, parsed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clawos
from clawos.core.errors import ClawError
from clawos.core.names import Room
from clawos.core.wire import SYSTEM_BUS, Wire

AGENT = Room("agent").bus_name
INFERENCE = Room("inference").bus_name
ISOLATOR = Room("isolator").bus_name
MONITOR = Room("monitor").bus_name
SYSTEMD = "org.freedesktop.systemd1"
_MANAGER_PATH = "/org/freedesktop/systemd1"
_MANAGER = f"{SYSTEMD}.Manager"
# A call may start a service that loads a model, on an emulated machine.
START_TIMEOUT_S = 180
_NOT_SET = 2**64 - 1  # systemd's "no such number"


@dataclass(frozen=True)
class Started:
    """Streams of a group of calls: of a chain one stdout, the last one's."""

    stdout: list[int]
    stderr: list[int]
    result: int


@dataclass(frozen=True)
class Unit:
    """A systemd unit as it is now."""

    name: str
    description: str
    active: str
    sub: str
    memory_bytes: int | None = None


def rooms(directory: Path = Path("/usr/share/dbus-1/system-services")) -> list[Room]:
    """The services that are installed, by their activation files; in a checkout, those beside the code."""
    package = Path(clawos.__file__).parent
    files = [*directory.glob("org.clawos.*1.service")] or [*package.glob("*/system/org.clawos.*1.service")]
    return [Room(name) for name in sorted(file.name.split(".")[2][:-1].lower() for file in files)]


class Machine:
    """The bus of this machine."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @classmethod
    def connect(cls) -> Machine:
        return cls(Wire.connect(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS))

    def ask(self, name: str, member: str, *arguments: str) -> Any:
        """Call a member that answers with JSON. Raises ClawError."""
        (text,) = self._wire.room(name, member, *arguments, timeout_s=START_TIMEOUT_S)
        return json.loads(text)

    def text(self, name: str, member: str) -> str:
        """Call a member that answers with plain text. Raises ClawError."""
        (text,) = self._wire.room(name, member, timeout_s=START_TIMEOUT_S)
        return str(text)

    def stream(self, name: str, member: str, request: str) -> int:
        """Call a member that answers with a stream alone. Returns its descriptor, the caller's to close."""
        (stream,) = self._wire.room(name, member, request, timeout_s=START_TIMEOUT_S)
        return int(stream)

    def tell(
        self, name: str, member: str, *arguments: str, fds: tuple[int, ...] = (), timeout_s: float
    ) -> None:
        """Call a member that answers nothing. Raises ClawError."""
        self._wire.room(name, member, *arguments, fds=fds, timeout_s=timeout_s)

    def start(self, name: str, member: str, request: str) -> int:
        """Call a member that answers with an id and a stream. Returns the stream's descriptor."""
        _, stream = self._wire.room(name, member, request, timeout_s=START_TIMEOUT_S)
        return int(stream)

    def run(self, specification: str, stdin: int) -> tuple[int, int, int]:
        """Run a call in a sandbox. Returns its streams stdout, stderr and result, the caller's to close."""
        _, *streams = self._wire.room(ISOLATOR, "Run", specification, fds=(stdin,), timeout_s=START_TIMEOUT_S)
        stdout, stderr, result = map(int, streams)
        return stdout, stderr, result

    def run_group(self, group: str, stdin: int) -> Started:
        """Run calls together, in sandboxes. Their streams are the caller's to close."""
        _, *streams = self._wire.room(ISOLATOR, "RunGroup", group, fds=(stdin,), timeout_s=START_TIMEOUT_S)
        return Started(*streams)

    def runs(self, name: str) -> bool:
        """Whether this bus name is held now; starts nothing."""
        return self._wire.has_owner(name)

    def failed_units(self) -> list[str]:
        (units,) = self._wire.call(SYSTEMD, _MANAGER_PATH, _MANAGER, "ListUnitsFiltered", "as", [["failed"]])
        return [unit[0] for unit in units]

    def unit(self, name: str) -> Unit:
        """State of a unit, loaded or not. Raises ClawError."""
        (path,) = self._wire.call(SYSTEMD, _MANAGER_PATH, _MANAGER, "LoadUnit", "s", [name])
        active, sub, description = (
            self._wire.read_property(SYSTEMD, path, f"{SYSTEMD}.Unit", member)
            for member in ("ActiveState", "SubState", "Description")
        )
        return Unit(name, description, active, sub, self._memory(path))

    def control_group(self, unit: str) -> str:
        """Path of a unit's cgroup below /sys/fs/cgroup; "" when it does not run. Raises ClawError."""
        (path,) = self._wire.call(SYSTEMD, _MANAGER_PATH, _MANAGER, "LoadUnit", "s", [unit])
        return str(self._wire.read_property(SYSTEMD, path, f"{SYSTEMD}.Service", "ControlGroup"))

    def _memory(self, path: str) -> int | None:
        try:
            value = self._wire.read_property(SYSTEMD, path, f"{SYSTEMD}.Service", "MemoryCurrent")
        except ClawError:
            return None
        return None if value == _NOT_SET else int(value)
