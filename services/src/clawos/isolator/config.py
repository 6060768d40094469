"""Settings of the isolator: /etc/clawos/isolator.toml over these defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from clawos.core.names import POLICY_DIR, Room
from clawos.core.parse import Record

ROOM = Room("isolator")

_Count = Annotated[int, msgspec.Meta(ge=1, le=256)]


class Config(Record, frozen=True):
    running_max: _Count = 8
    queued_max: _Count = 32
    queue_wait_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 60
    landlock_min_abi: Annotated[int, msgspec.Meta(ge=1, le=64)] = 6
    run_as: dict[str, tuple[str, ...]] = msgspec.field(
        default_factory=lambda: {"clawos-sandbox": ("*",), "clawos-units": ("unit.*",)}
    )
    """User → patterns of the tools that may run as this user."""
    read: tuple[str, ...] = ("/etc", "/run/log/journal", "/usr", "/var/log")
    sockets: tuple[str, ...] = ("/run/dbus/system_bus_socket",)
    groups: tuple[str, ...] = ("systemd-journal",)
    home: Path = ROOM.state_dir / "home"
    launcher: Path = Path("/usr/lib/clawos/claw-launch")
    filters: Path = Path("/usr/lib/clawos/seccomp")
    quotas: Path = POLICY_DIR / "quotas.toml"
