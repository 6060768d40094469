"""What the kernel's maps hold, byte for byte, and that their layouts are those of the C side."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clawos.monitor import fill
from clawos.monitor.enforce import Policy, load, parse
from clawos.monitor.fill import Entry

ROOT = Path(__file__).parents[3]
POLICY = load(ROOT / "policies/enforce.toml")
BASE = """version = 1
[set.default]
reason = "x"
families = ["unix", "inet6"]
forbid = ["mount"]
[set.other]
reason = "x"
families = []
forbid = []
[[device]]
number = "136:7"
reason = "x"
{}
[egress]
packets_s = 1000
burst = 10
[[egress.allow]]
address = "192.0.2.1"
port = 443
reason = "x"
[uplink]
packets_s = 1000
burst = 5
ephemeral = [1000, 2000]
types = [0x0806]
[[uplink.allow]]
protocol = "tcp"
port = 22
reason = "x"
"""


def policy(*rules: str) -> Policy:
    none = [f"{kind} = []\n" for kind in ("path", "address") if f"[[{kind}]]" not in "".join(rules)]
    return parse("".join(none) + BASE.format("\n".join(rules)), "test")


def nobody(_: str) -> os.stat_result:
    raise FileNotFoundError


def entries(*rules: str, of: str, look: Callable[[str], os.stat_result] = nobody) -> list[Entry]:
    return [entry for entry in fill.enforce_entries(policy(*rules), look) if entry.map == of]


def path_rule(kind: str, path: str, verdict: str = 'deny = ["open"]') -> str:
    return f'[[path]]\n{kind} = "{path}"\n{verdict}\nreason = "x"'


def texts(found: list[Entry]) -> list[bytes]:
    """The part of each key that has to match."""
    bits = [struct.unpack_from("=I", entry.key)[0] for entry in found]
    return [entry.key[8 : 8 + (count - 32) // 8] for entry, count in zip(found, bits, strict=True)]


def test_a_file_ends_with_its_name() -> None:
    assert texts(entries(path_rule("file", "/etc/shadow"), of="enforce_paths")) == [b"/etc/shadow\0"]


def test_a_directory_is_itself_and_what_is_below() -> None:
    assert texts(entries(path_rule("below", "/etc/sha"), of="enforce_paths")) == [b"/etc/sha\0", b"/etc/sha/"]
    assert texts(entries(path_rule("below", "/"), of="enforce_paths")) == [b"/"]


def test_a_file_goes_before_the_directory_of_its_name() -> None:
    rules = path_rule("file", "/a", 'allow = ["open"]'), path_rule("below", "/a")
    found = entries(*rules, of="enforce_paths")
    kept = {entry.key: fill.VERDICT.unpack(entry.value)[0] for entry in found}
    assert dict(zip(texts(found), kept.values(), strict=False)) == {b"/a\0": 0, b"/a/": 1}


def test_each_act_and_set_has_its_own_key() -> None:
    rule = path_rule("file", "/a", 'set = "other"\ndeny = ["write", "execute"]')
    found = entries(rule, of="enforce_paths")
    assert [struct.unpack_from("=HB", entry.key, 4) for entry in found] == [(1, 1), (1, 2)]
    first = len(fill.OWN_RULES)
    assert {fill.VERDICT.unpack(entry.value) for entry in found} == {(1, first)}


def address_rule(net: str, rest: str = "") -> str:
    return f'[[address]]\nnet = "{net}"\ndeny = ["connect"]\nreason = "x"\n{rest}'


@pytest.mark.parametrize(
    ("net", "bits", "address"),
    [
        ("::/0", 64, bytes(16)),
        ("0.0.0.0/0", 64 + 96, bytes(10) + b"\xff\xff" + bytes(4)),
        ("169.254.0.0/16", 64 + 112, bytes(10) + b"\xff\xff\xa9\xfe" + bytes(2)),
        ("fe80::/10", 64 + 10, b"\xfe\x80" + bytes(14)),
        ("2001:db8::1", 64 + 128, b"\x20\x01\x0d\xb8" + bytes(11) + b"\1"),
    ],
)
def test_ipv4_lies_within_ipv6(net: str, bits: int, address: bytes) -> None:
    (found,) = entries(address_rule(net), of="enforce_addresses")
    assert struct.unpack_from("=I", found.key)[0] == bits
    assert found.key[12:] == address


def test_each_port_has_its_own_key() -> None:
    found = entries(address_rule("::/0", "ports = [80, 443]"), of="enforce_addresses")
    assert [entry.key[8:10] for entry in found] == [b"\0\x50", b"\1\xbb"]


def test_a_set_says_what_holds_for_all() -> None:
    found = entries(of="enforce_sets")
    assert [fill.SET.unpack(entry.value) for entry in found] == [(1 << 1 | 1 << 10, 4, 1), (0, 0, 1)]


def test_devices_are_numbered_as_the_kernel_does() -> None:
    (found,) = entries(of="enforce_devices")
    assert found.key == struct.pack("=I", 136 << 20 | 7)


def test_what_the_machine_has_is_found_and_the_rest_passed_over(tmp_path: Path) -> None:
    rules = [f'[[host]]\npath = "{path}"\nreason = "x"' for path in (tmp_path, tmp_path / "none")]
    (found,) = entries(*rules, of="enforce_hosts", look=os.stat)
    status = tmp_path.stat()
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    assert fill.HOST_KEY.unpack(found.key) == (status.st_ino, device)
    (seen,) = entries(*rules, of="enforce_host_devices", look=os.stat)
    assert seen.key == struct.pack("=I", device)


def test_xdp_gets_addresses_as_on_the_wire() -> None:
    found = {entry.map: entry for entry in fill.xdp_entries(policy())}
    assert found["egress_rules"].key == bytes([192, 0, 2, 1, 1, 0xBB, 0, 0])
    assert fill.PACE.unpack(found["egress_pace"].value) == (1_000_000, 10_000_000)
    assert found["uplink_rules"].key == bytes([0, 22, 6, 0])
    assert found["uplink_types"].key == bytes([0x08, 0x06])
    assert fill.UPLINK_SETTINGS.unpack(found["uplink_settings"].value) == (1_000_000, 5_000_000, 1000, 2000)


def test_rules_have_the_numbers_that_verdicts_name() -> None:
    names = fill.rule_names(POLICY)
    judged = {"enforce_paths", "enforce_addresses", "enforce_hosts"}
    found = [entry for entry in fill.enforce_entries(POLICY, os.stat) if entry.map in judged]
    numbers = {fill.VERDICT.unpack(entry.value)[1] for entry in found}
    assert numbers <= names.keys()
    assert names[len(fill.OWN_RULES)] == "path:default:/etc/shadow"


def test_the_isolators_cgroups_are_found_where_they_are(tmp_path: Path) -> None:
    assert fill.isolator_entries(tmp_path / "none") == []
    (tmp_path / "supervisor").mkdir()
    (found,) = fill.isolator_entries(tmp_path)
    ids = tmp_path.stat().st_ino, (tmp_path / "supervisor").stat().st_ino
    assert fill.ISOLATOR.unpack(found.value) == ids


SIZES = {
    "path_key": fill.PATH_KEY,
    "address_key": fill.ADDRESS_KEY,
    "verdict": fill.VERDICT,
    "host_key": fill.HOST_KEY,
    "set": fill.SET,
    "isolator": fill.ISOLATOR,
    "egress_key": fill.EGRESS_KEY,
    "pace": fill.PACE,
    "uplink_key": fill.UPLINK_KEY,
    "uplink_settings": fill.UPLINK_SETTINGS,
}
OFFSETS = {
    "path_key": {"prefixlen": 0, "set": 4, "act": 6, "path": 8},
    "address_key": {"prefixlen": 0, "set": 4, "direction": 6, "port": 8, "address": 12},
    "verdict": {"deny": 0, "rule": 4},
    "host_key": {"inode": 0, "device": 8},
    "set": {"families": 0, "forbid": 8, "known": 12},
    "isolator": {"service": 0, "supervisor": 8},
    "egress_key": {"address": 0, "port": 4},
    "pace": {"packet_ns": 0, "burst_ns": 8},
    "uplink_key": {"port": 0, "protocol": 2, "is_source": 3},
    "uplink_settings": {"pace": 0, "ephemeral_low": 16, "ephemeral_high": 18},
}


@pytest.mark.processes
def test_layouts_are_those_of_the_compiled_objects(tmp_path: Path) -> None:
    """By the BTF that the objects carry, which is what the kernel goes by."""
    subprocess.run(["make", "-s", "-C", ROOT / "ebpf", f"OUT={tmp_path}"], check=True)
    found: dict[str, dict[str, int]] = {}
    sizes: dict[str, int] = {}
    for name in ("monitor", "xdp"):
        command = ["bpftool", "-j", "btf", "dump", "file", str(tmp_path / f"{name}.bpf.o")]
        dumped = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        for made in dumped["types"]:
            if made["kind"] == "STRUCT" and made["name"] in SIZES:
                sizes[made["name"]] = made["size"]
                found[made["name"]] = {m["name"]: m["bits_offset"] // 8 for m in made["members"]}
    assert sizes == {name: layout.size for name, layout in SIZES.items()}
    for name, offsets in OFFSETS.items():
        assert offsets.items() <= found[name].items(), name
