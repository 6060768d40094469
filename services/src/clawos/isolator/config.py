"""Settings of the isolator: /etc/clawos/isolator.toml over these defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from clawos.core.names import POLICY_DIR, Room
from clawos.core.parse import Record

ROOM = Room("isolator")

_Count = Annotated[int, msgspec.Meta(ge=1, le=256)]
# Ids that no user has: 0x70000000 to 0x7ffdffff, see https://systemd.io/UIDS-GIDS
_Uid = Annotated[int, msgspec.Meta(ge=65536, le=2**31 - 2**16)]
_Program = Annotated[str, msgspec.Meta(pattern=r"^(/[^*]+|\*)\Z")]


class Config(Record, frozen=True):
    backend: Literal["launcher", "bubblewrap"] = "launcher"
    running_max: _Count = 8
    queued_max: _Count = 256
    user_running_max: _Count | None = None
    """None: `running_max` less two, so that whoever runs most leaves room for others."""
    user_queued_max: _Count = 128
    queue_wait_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 60
    drain_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60
    landlock_min_abi: Annotated[int, msgspec.Meta(ge=1, le=64)] = 6
    uid_first: _Uid = 0x70000000
    uid_count: Annotated[int, msgspec.Meta(ge=258, le=65536)] = 1024
    """The ids that calls have outside, each its own. At least one more than the most calls at a time."""
    run_as: dict[str, tuple[_Program, ...]] = msgspec.field(
        default_factory=lambda: {
            "clawos-sandbox": ("*",),
            "clawos-units": ("/usr/lib/clawos/tools/units",),
            "clawos-power": ("/usr/lib/clawos/tools/power",),
            "clawos-settings": ("/usr/lib/clawos/tools/settings",),
        }
    )
    """User → programs that may run as this user; `*` is any."""
    read: tuple[str, ...] = ("/etc", "/run/log/journal", "/usr", "/var/log")
    wasm: tuple[str, ...] = ("/etc/clawos/tools.d", "/usr/lib/clawos/wasm")
    """Directories of WebAssembly modules that a call may run."""
    sockets: tuple[str, ...] = ("/run/dbus/system_bus_socket",)
    groups: tuple[str, ...] = ("systemd-journal",)
    home: Path = ROOM.state_dir / "home"
    launcher: Path = Path("/usr/lib/clawos/claw-launch")
    bubblewrap: Path = Path("/usr/bin/bwrap")
    confine: Path = Path("/usr/lib/clawos/claw-confine")
    filters: Path = Path("/usr/lib/clawos/seccomp")
    quotas: Path = POLICY_DIR / "quotas.toml"

    @property
    def running_by_user(self) -> int:
        return self.user_running_max or max(1, self.running_max - 2)
