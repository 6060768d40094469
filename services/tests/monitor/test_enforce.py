"""policies/enforce.toml: what we ship, and how each mistake in it is named."""

from __future__ import annotations

import json
import tomllib
from ipaddress import IPv4Address
from pathlib import Path

import fastjsonschema
import pytest

from clawos.core.errors import ConfigInvalid
from clawos.core.parse import to_json
from clawos.monitor.enforce import Act, load, parse, published_schema
from clawos.network.config import Config as NetworkConfig

POLICIES = Path(__file__).parents[3] / "policies"
FILE = POLICIES / "enforce.toml"
SCHEMA = POLICIES / "schema" / "enforce.schema.json"
TEXT = FILE.read_text()


def test_published_schema_is_that_of_the_parser() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(to_json(published_schema()))


def test_what_we_ship_is_valid_under_the_published_schema() -> None:
    fastjsonschema.compile(json.loads(SCHEMA.read_text()))(tomllib.loads(TEXT))


def test_what_we_ship_lets_the_egress_service_pass() -> None:
    network, policy = NetworkConfig(), load(FILE)
    (egress,) = policy.egress.allow
    assert (egress.address, egress.port) == (network.proxy, network.port)
    allowed = [rule for rule in policy.address if rule.allow]
    assert [(rule.net, rule.ports) for rule in allowed] == [(network.proxy, (network.port,))]
    assert IPv4Address(network.proxy) not in network.range


def test_default_is_the_first_set() -> None:
    assert load(FILE).sets == ["default", "quarantine"]


def test_quarantine_forbids_every_act() -> None:
    (rule,) = [rule for rule in load(FILE).path if rule.set == "quarantine"]
    assert rule.below == "/"
    assert set(rule.deny) == set(Act)


MISTAKES = {
    "no TOML": ("version = 1", "version = ", "version", "Invalid value"),
    "another version": ("version = 1", "version = 2", "version", "Invalid enum value 2"),
    "unknown field": ('number = "1:3"', 'nummer = "1:3"', "device[0]", "nummer"),
    "unknown family": ("families = []", 'families = ["x25"]', "set.quarantine", "'x25'"),
    "unknown act": ('deny = ["execute"]', 'deny = ["run"]', "path", "'run'"),
    "no device": ('number = "1:5"', 'number = "zero"', "device[1]", "matching regex"),
    "trailing slash": ('file = "/etc/gshadow"', 'file = "/etc/gshadow/"', "path[2]", "plain form"),
    "dots": ('file = "/etc/gshadow"', 'file = "/etc/../gshadow"', "path[2]", "plain form"),
    "relative": ('file = "/etc/gshadow"', 'file = "etc/gshadow"', "path[2].file", "matching regex"),
    "too long": ('file = "/etc/gshadow"', f'file = "/{"x" * 240}"', "path[2]", "240 bytes"),
    "both": ('file = "/etc/gshadow"', 'file = "/etc/gshadow"\nbelow = "/x"', "path[2]", "either `file`"),
    "neither verdict": ('deny = ["execute"]\n', "", "path", "either `deny` or `allow`"),
    "twice": ('file = "/etc/gshadow"', 'file = "/etc/shadow"', "path[2]", "another rule"),
    "twice the machine's": ('path = "/var/root"', 'path = "/var/home"', "host[2]", "another rule"),
    "unknown set": ('set = "quarantine"\nbelow', 'set = "jail"\nbelow', "set", "no set 'jail'"),
    "host bits": ('net = "198.19.255.1"', 'net = "198.19.255.1/16"', "address[1]", "host bits set"),
    "port": ("ports = [8118]", "ports = [0]", "address[1].ports[0]", ">= 1"),
    "IPv4 as a type": ("types = [0x0806", "types = [0x0800", "uplink", "do not pass as such"),
    "no packets": ("burst = 4_000", "burst = 0", "egress.burst", ">= 1"),
    "ports the wrong way": ("[32768, 60999]", "[60999, 32768]", "uplink", "above the last"),
    "no default": ("[set.default]", "[set.other]", "set", "no set 'default'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line(mistake: str) -> None:
    right, wrong, place, what = MISTAKES[mistake]
    assert right in TEXT
    text = TEXT.replace(right, wrong, 1)
    with pytest.raises(ConfigInvalid) as refused:
        parse(text, "enforce.toml")
    assert what in refused.value.message, refused.value.message
    assert place in refused.value.message or mistake == "no TOML"
    line = int(str(refused.value.fields["line"]))
    assert refused.value.message.startswith(f"enforce.toml:{line}: ")
    lines = text.splitlines()
    changed = text[: TEXT.index(right)].count("\n") + 1
    begins = max(number for number in range(1, changed + 1) if number == 1 or lines[number - 1][:1] == "[")
    # The line itself, or the head of its table.
    assert begins <= line <= changed + 1 or mistake == "no default"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        load(tmp_path / "enforce.toml")
