"""What the maps of `ebpf/enforce` and `ebpf/xdp` hold, made of policies/enforce.toml.

First a list of entries, which can be looked at; the loader then writes it. The layouts are those of
`ebpf/enforce/enforce.h` and `ebpf/xdp`; a test compares them by the BTF of the compiled objects.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from clawos.monitor.enforce import Act, Direction, Egress, Family, Forbidden, Policy, Uplink

_FAMILIES = {Family.UNIX: 1, Family.INET: 2, Family.INET6: 10, Family.NETLINK: 16}
_FORBID = {Forbidden.MODULE: 1, Forbidden.PTRACE: 2, Forbidden.MOUNT: 4, Forbidden.NAMESPACE: 8}
_ACTS = {Act.OPEN: 0, Act.WRITE: 1, Act.EXECUTE: 2}
_DIRECTIONS = {Direction.CONNECT: 0, Direction.BIND: 1}
OWN_RULES = ("unreadable", "device", "family", "act")
"""Numbers of verdicts that are no line's: what cannot be looked at, and what [set] and [[device]] say."""
PATH_KEY_BYTES = 248

SET = struct.Struct("=QII")
PATH_KEY = struct.Struct(f"=IHBx{PATH_KEY_BYTES}s")
ADDRESS_KEY = struct.Struct("=IHBx2s2x16s")
VERDICT = struct.Struct("=II")
HOST_KEY = struct.Struct("=QI4x")
WORD = struct.Struct("=I")
EGRESS_KEY = struct.Struct("=4s2s2x")
PACE = struct.Struct("=QQ")
UPLINK_KEY = struct.Struct("=2sBB")
UPLINK_SETTINGS = struct.Struct("=QQHH4x")

_HEAD_BITS = 32
_ADDRESS_HEAD_BITS = 64
_MAPPED = bytes(10) + b"\xff\xff"
_MAPPED_BITS = 96
_SECOND_NS = 1_000_000_000
_PROTOCOLS = {"tcp": 6, "udp": 17}
_MAJOR_SHIFT = 20
"""As the kernel packs a device's number for itself."""


@dataclass(frozen=True)
class Entry:
    """One element of a map."""

    map: str
    key: bytes
    value: bytes


def rule_names(policy: Policy) -> dict[int, str]:
    """The rules' numbers in `enforce_hits` and what a person calls them."""
    names = list(OWN_RULES)
    names += [f"path:{rule.set}:{rule.path}" for rule in policy.path]
    names += [f"address:{rule.set}:{rule.net}" for rule in policy.address]
    names += [f"host:{rule.path}" for rule in policy.host]
    return dict(enumerate(names))


def enforce_entries(policy: Policy, look: Callable[[str], os.stat_result] = os.stat) -> list[Entry]:
    """What `ebpf/enforce` needs. `look` finds the machine's files; one that is not there is passed over."""
    return [
        *_sets(policy),
        *_devices(policy),
        *_paths(policy),
        *_addresses(policy),
        *_hosts(policy, look),
    ]


def xdp_entries(policy: Policy) -> list[Entry]:
    """What `ebpf/xdp` needs."""
    return [*_egress(policy.egress), *_uplink(policy.uplink)]


def _sets(policy: Policy) -> Iterator[Entry]:
    for number, name in enumerate(policy.sets):
        made = policy.set[name]
        families = sum(1 << _FAMILIES[family] for family in made.families)
        forbid = sum(_FORBID[act] for act in made.forbid)
        yield Entry("enforce_sets", WORD.pack(number), SET.pack(families, forbid, True))


def _devices(policy: Policy) -> Iterator[Entry]:
    for device in policy.device:
        major, minor = map(int, device.number.split(":"))
        yield Entry("enforce_devices", WORD.pack(_packed(major, minor)), WORD.pack(1))


def _packed(major: int, minor: int) -> int:
    return major << _MAJOR_SHIFT | minor


def _paths(policy: Policy) -> Iterator[Entry]:
    sets = policy.sets
    # A directory's rule is about itself too, unless one of `file` is: that comes later, then.
    numbered = sorted(enumerate(policy.path, len(OWN_RULES)), key=lambda pair: pair[1].file is not None)
    for number, rule in numbered:
        path = os.fsencode(rule.path)
        if rule.file is not None:
            ends = [path + b"\0"]
        elif path == b"/":
            ends = [path]
        else:
            ends = [path + b"\0", path + b"/"]
        verdict = VERDICT.pack(bool(rule.deny), number)
        for act in (*rule.deny, *rule.allow):
            for text in ends:
                bits = _HEAD_BITS + 8 * len(text)
                key = PATH_KEY.pack(bits, sets.index(rule.set), _ACTS[act], text)
                yield Entry("enforce_paths", key, verdict)


def _addresses(policy: Policy) -> Iterator[Entry]:
    sets = policy.sets
    for number, rule in enumerate(policy.address, len(OWN_RULES) + len(policy.path)):
        network = rule.network
        address, bits = network.network_address.packed, network.prefixlen
        if isinstance(network, IPv4Network):
            address, bits = _MAPPED + address, bits + _MAPPED_BITS
        verdict = VERDICT.pack(bool(rule.deny), number)
        for direction in (*rule.deny, *rule.allow):
            for port in rule.ports or (0,):
                head = _ADDRESS_HEAD_BITS + bits, sets.index(rule.set), _DIRECTIONS[direction]
                key = ADDRESS_KEY.pack(*head, port.to_bytes(2), address)
                yield Entry("enforce_addresses", key, verdict)


def _hosts(policy: Policy, look: Callable[[str], os.stat_result]) -> Iterator[Entry]:
    first = len(OWN_RULES) + len(policy.path) + len(policy.address)
    for number, rule in enumerate(policy.host, first):
        try:
            found = look(rule.path)
        except FileNotFoundError:
            continue
        device = _packed(os.major(found.st_dev), os.minor(found.st_dev))
        key = HOST_KEY.pack(found.st_ino, device)
        yield Entry("enforce_hosts", key, VERDICT.pack(not rule.allow, number))
        yield Entry("enforce_host_devices", WORD.pack(device), WORD.pack(1))


def _pace(packets_s: int, burst: int) -> bytes:
    packet_ns = _SECOND_NS // packets_s
    return PACE.pack(packet_ns, burst * packet_ns)


def _egress(egress: Egress) -> Iterator[Entry]:
    for number, rule in enumerate(egress.allow):
        key = EGRESS_KEY.pack(IPv4Address(rule.address).packed, rule.port.to_bytes(2))
        yield Entry("egress_rules", key, WORD.pack(number))
    yield Entry("egress_pace", WORD.pack(0), _pace(egress.packets_s, egress.burst))


def _uplink(uplink: Uplink) -> Iterator[Entry]:
    for number, rule in enumerate(uplink.allow):
        key = UPLINK_KEY.pack(rule.port.to_bytes(2), _PROTOCOLS[rule.protocol], False)
        yield Entry("uplink_rules", key, WORD.pack(number))
    for kind in uplink.types:
        yield Entry("uplink_types", kind.to_bytes(2), struct.pack("=H", 1))
    packet_ns = _SECOND_NS // uplink.packets_s
    settings = UPLINK_SETTINGS.pack(packet_ns, uplink.burst * packet_ns, *uplink.ephemeral)
    yield Entry("uplink_settings", WORD.pack(0), settings)


ISOLATOR = struct.Struct("=QQ")
_SERVICE = Path("/sys/fs/cgroup/system.slice/clawos-isolator.service")


def isolator_entries(service: Path = _SERVICE) -> list[Entry]:
    """The isolator's cgroups where they are there already; else the kernel side sees them being made."""
    ids = [_inode(service), _inode(service / "supervisor")]
    return [Entry("isolators", WORD.pack(0), ISOLATOR.pack(*ids))] if ids[0] else []


def _inode(path: Path) -> int:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0
    return found.st_ino if stat.S_ISDIR(found.st_mode) else 0
