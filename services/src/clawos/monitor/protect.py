"""What protects, as the loader puts it in place: the rules, XDP's programs, and last of all the guard."""

from __future__ import annotations

import array
import grp
import os
import pwd
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from clawos.core.names import POLICY_DIR
from clawos.monitor import enforce, fill
from clawos.monitor.libbpf import Map, Object

POLICY = POLICY_DIR / "enforce.toml"
WRITABLE = {
    "events": "clawos-monitor",
    "guest_sets": "clawos-monitor",
    "follows": "root",
    "named_cgroups": "root",
}
"""Who may open a map to write: to take from the ring is to write; a call may be given a set that forbids
more; settings say which cgroups are followed beside sandboxes. All others nobody may, from then on."""
PROGRAMS = {"egress_xdp": "clawos-network", "uplink_xdp": "root"}
"""XDP's programs, and the group that may open each to attach it."""

_NOBODY = 0xFFFF_FFFF
_GUARD = struct.Struct("=IIQ")


def fill_enforcement(maps: Mapping[str, Map], file: Path = POLICY) -> enforce.Policy:
    """Put the policy into the maps, before any program runs. Raises ConfigInvalid, BpfRefused."""
    policy = enforce.load(file)
    _fill(maps, fill.enforce_entries(policy))
    _fill(maps, fill.isolator_entries())
    return policy


def load_xdp(path: Path, pins: Path, policy: enforce.Policy) -> Object:
    """XDP's programs, filled and pinned for those who attach them. Raises BpfRefused."""
    xdp = Object(path)
    try:
        _fill(xdp.maps(), fill.xdp_entries(policy))
        for program in xdp.programs():
            pin = pins / program.name
            pin.unlink(missing_ok=True)
            program.pin(pin)
            os.chown(pin, 0, grp.getgrnam(PROGRAMS[program.name]).gr_gid)
            pin.chmod(0o640)
    except BaseException:
        xdp.close()
        raise
    return xdp


def _fill(maps: Mapping[str, Map], entries: Iterable[fill.Entry]) -> None:
    for entry in entries:
        maps[entry.map].update(entry.key, entry.value)


def hold(links: list[int]) -> bool:
    """Give the links to PID 1 as well: they outlast their pins, then. False: systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", links))
        notify.sendmsg([b"FDSTORE=1\nFDNAME=links\nFDPOLL=0"], [rights])
    return True


def arm(guard: Map, guard_maps: Map, ours: Iterable[Map], pins: Path) -> None:
    """From here on only PID 1 changes what the kernel runs of eBPF; nothing disarms it. Raises BpfRefused."""
    for made in ours:
        user = _uid(WRITABLE[made.name]) if made.name in WRITABLE else _NOBODY
        guard_maps.update(struct.pack("=I", made.id), struct.pack("=I", user))
    guard_maps.freeze()
    found = pins.stat()
    device = os.major(found.st_dev) << 20 | os.minor(found.st_dev)
    guard.update(struct.pack("=I", 0), _GUARD.pack(True, device, found.st_ino))
    guard.freeze()


def _uid(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return 0
