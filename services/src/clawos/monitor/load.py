"""Load the monitor's programs and pin them, then end: python3 -I -m clawos.monitor.load

Runs once at boot, as root, before anything that it watches. What it leaves below /sys/fs/bpf/clawos stays
until the machine is switched off: a second start finds it and changes nothing.
"""

from __future__ import annotations

import grp
import os
import struct
import sys
from pathlib import Path

from clawos.core import config
from clawos.core.errors import ClawError
from clawos.monitor import protect
from clawos.monitor.config import ROOM, Config
from clawos.monitor.follow import follow
from clawos.monitor.kinds import EVERYWHERE, Kind
from clawos.monitor.libbpf import BpfRefused, Map, Object

OBJECTS = Path("/usr/lib/clawos/ebpf")
PINS = Path("/sys/fs/bpf/clawos")
LSM = Path("/sys/kernel/security/lsm")

FOR_CONSUMER = {
    "events": 0o660,
    "counts": 0o640,
    "kinds": 0o640,
    "guest_sets": 0o660,
    "enforce_hits": 0o640,
    "egress_counts": 0o640,
    "uplink_counts": 0o640,
}
"""Maps in `monitor/`, for the group clawos-monitor; to take from the ring is to write to it."""

_IN_EVERYWHERE, _WAKES = 1, 2
_AT_ONCE = frozenset(Kind) - {Kind.FORK, Kind.EXIT, Kind.OPEN, Kind.CREATE, Kind.UNLINK, Kind.RENAME}
_PER_SECOND = {Kind.OPEN: 500_000, Kind.CREATE: 200_000, Kind.UNLINK: 200_000}
_PER_SECOND_ELSE = 50_000
"""On one processor: far above what any work does, and below what would keep the processor from it."""


class LoadFailed(Exception):
    """The monitor is not in place, and why."""


def main() -> int:
    try:
        done = load()
    except (LoadFailed, BpfRefused, ClawError, OSError) as error:
        print(f"clawos-monitor-load: {error}", file=sys.stderr)
        return 1
    print(f"clawos-monitor-load: {done}")
    return 0


def load() -> str:
    """Returns what was done. Raises LoadFailed, BpfRefused, OSError."""
    settings = config.load(ROOM, Config)
    if (PINS / "complete").is_dir():
        follow(settings.follow, Map.pinned(PINS / "maps/named_cgroups"), Map.pinned(PINS / "maps/follows"))
        return "all is in place already"
    if "bpf" not in LSM.read_text().strip().split(","):
        raise LoadFailed(
            f"the kernel runs without the LSM bpf: {LSM} does not name it; see lsm= of its command line"
        )
    _clear()
    for folder, group in (("maps", "root"), ("links", "root"), ("monitor", "clawos-monitor")):
        _make_folder(PINS / folder, group)
    with Object(OBJECTS / "monitor.bpf.o") as monitor:
        maps = monitor.maps()
        follow(settings.follow, maps["named_cgroups"], maps["follows"])
        policy = protect.fill_enforcement(maps)
        with protect.load_xdp(OBJECTS / "xdp.bpf.o", PINS, policy) as xdp:
            ours = [*maps.values(), *xdp.maps().values()]
            for made in ours:
                _pin(made)
            programs = monitor.programs()
            links = [program.attach(PINS / "links" / program.name) for program in programs]
            protect.hold(links)
            protect.arm(maps["guard"], maps["guard_maps"], ours, PINS)
            # From here on there are records: none of what we did ourselves.
            _set_kinds(maps["kinds"])
            # Says to a later start that nothing is missing.
            (PINS / "complete").mkdir(0o700)
            return f"{len(programs)} programs are attached, {len(xdp.programs())} of XDP wait for their links"


def _set_kinds(kinds: Map) -> None:
    for kind in Kind:
        kinds.update(struct.pack("=I", kind), struct.pack("=II", *kind_setting(kind)))


def kind_setting(kind: Kind) -> tuple[int, int]:
    """struct kind_setting: how many in a second, and flags."""
    flags = _IN_EVERYWHERE * (kind in EVERYWHERE) | _WAKES * (kind in _AT_ONCE)
    return _PER_SECOND.get(kind, _PER_SECOND_ELSE), flags


def _pin(made: Map) -> None:
    mode = FOR_CONSUMER.get(made.name)
    path = PINS / ("maps" if mode is None else "monitor") / made.name
    made.pin(path)
    if mode is not None:
        os.chown(path, 0, grp.getgrnam("clawos-monitor").gr_gid)
    path.chmod(mode or 0o600)


def _clear() -> None:
    """Remove what a start that was cut short has left. The XDP program's pin goes with the rest."""
    PINS.mkdir(0o750, exist_ok=True)
    for folder in ("links", "maps", "monitor"):
        path = PINS / folder
        if path.is_dir():
            for pin in path.iterdir():
                pin.unlink()


def _make_folder(path: Path, group: str) -> None:
    path.mkdir(0o700, exist_ok=True)
    os.chown(path, 0, grp.getgrnam(group).gr_gid)
    path.chmod(0o700 if group == "root" else 0o750)


if __name__ == "__main__":
    sys.exit(main())
