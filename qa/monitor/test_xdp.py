"""What passes a sandbox's link and the machine's uplink: by real packets, and by runs of the programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qa.conftest import Call
from qa.monitor.conftest import Run, push, put
from qa.monitor.frames import COUNTS, FRAMES

EACH = [(program, name) for program, frames in FRAMES.items() for name in frames]
DROP, PASS = 1, 2
FLOOD, BURST = 100_000, 10


def tell(root: Run, *arguments: str) -> dict[str, Any]:
    push(root, "in_cgroup", "frames", "xdp_frames")
    done = root(f"python3 -I /run/qa/monitor/xdp_frames.py {' '.join(arguments)}")
    assert done.status == 0, done.stderr.decode()
    told: dict[str, Any] = json.loads(done.text)
    return told


@pytest.fixture(scope="session")
def sent(root: Run) -> dict[str, Any]:
    """By real packets, through the programs that are pinned: program → frame → what was counted."""
    return {
        program: tell(root, "real", program, program.replace("_xdp", "_counts")) for program in sorted(FRAMES)
    }


@pytest.fixture(scope="module")
def ran(unarmed: Run) -> dict[str, Any]:
    return tell(unarmed, "run")


@pytest.mark.parametrize(("program", "name"), EACH)
def test_a_packet_is_counted_by_its_rule(sent: dict[str, Any], program: str, name: str) -> None:
    _, count = FRAMES[program][name]
    assert sent[program][name] == {count: 1}


@pytest.mark.parametrize("program", FRAMES)
def test_it_is_attached_once(sent: dict[str, Any], program: str) -> None:
    assert sent[program]["how"] == "attached in the driver"
    assert sent[program]["again"] == "a program is attached already"


@pytest.mark.parametrize(("program", "name"), EACH)
def test_a_frame_passes_or_ends_there(ran: dict[str, Any], program: str, name: str) -> None:
    _, count = FRAMES[program][name]
    assert ran[program][name] == [PASS if count.startswith("passed") else DROP, {count: 1}]


def test_a_flood_ends_at_the_limit(ran: dict[str, Any]) -> None:
    for program in FRAMES:
        counted = ran[f"{program} flood"]["ARP"]
        assert set(counted) == {"passed type", "dropped rate"}
        assert sum(counted.values()) == FLOOD
        assert BURST <= counted["passed type"] < FLOOD / 10


def test_answers_are_not_held_to_the_limit(ran: dict[str, Any]) -> None:
    assert ran["uplink_xdp flood"]["TCP answer"] == {"passed reply": FLOOD}


def test_each_count_is_met(ran: dict[str, Any]) -> None:
    met = {count for program in FRAMES for _, counted in ran[program].values() for count in counted}
    assert met | {"dropped rate"} == set(COUNTS)


def test_a_sandbox_with_the_way_out_passes_through_it(root: Run, call: Call) -> None:
    """Its link has the program, and what it sends is counted."""
    put(root, "/etc/clawos/tools.d/test.fetch.toml", MANIFEST)
    try:
        before = counts(root)
        ran = call("test.fetch", code=f"import socket; socket.create_connection({PROXY!r}, 5)")
        assert "ConnectionRefused" in ran.stderr, "nobody listens, and says so"
        after = counts(root)
        assert after["passed rule"] > before["passed rule"]
        links = root("nsenter -t $(systemctl show -P MainPID clawos-network) -n ip -j link").text
        assert all("xdp" in link for link in json.loads(links) if link["ifname"] != "lo")
    finally:
        root("rm /etc/clawos/tools.d/test.fetch.toml")


@pytest.mark.parametrize(("kind", "how"), [("veth", "in the driver"), ("bridge", "in generic mode")])
def test_the_unit_attaches_the_uplinks_program(root: Run, kind: str, how: str) -> None:
    """Generic where the driver knows no XDP: a bridge has none."""
    assert root(f"ip link add testup type {kind} && udevadm settle").status == 0
    try:
        started = root("systemctl start clawos-uplink@testup.service")
        assert started.status == 0, root("journalctl -b -u clawos-uplink@testup -n 5").text
        assert f"attached {how}" in root("journalctl -b -q -o cat -u clawos-uplink@testup -n 20").text
        shown = json.loads(root("ip -j link show testup").text)[0]
        assert shown["xdp"]["prog"]["name"] == "uplink_xdp"
    finally:
        root("ip link del testup")


PROXY = ("198.19.255.1", 8118)
MANIFEST = """name = "test.fetch"
description = "Run Python with the way out."
class = "safe"
argv = ["/usr/bin/python3", "-I", "-c", "{code}"]
quota = "medium"
seccomp = "python"
[permissions]
network = "egress"
[arguments]
type = "object"
additionalProperties = false
required = ["code"]
[arguments.properties.code]
type = "string"
maxLength = 4096
"""


def counts(root: Run) -> dict[str, int]:
    return {name: int(value) for name, value in tell(root, "counts", "egress_counts").items()}
