"""Packets a second between two namespaces: without an XDP program, with one that does nothing, with ours."""

from __future__ import annotations

import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qa.load import bpf

FILTER = Path("/sys/fs/bpf/clawos/uplink_xdp")
SENDER, RECEIVER = "bench-sender", "bench-receiver"
FROM, TO, PORT = "10.99.0.1", "10.99.0.2", 40_000
"""To a port that the kernel picks for those who ask: what passes without a rule of its own."""
SECONDS = 2
ROUNDS = 15


def xdp(tools: Path) -> dict[str, Any]:
    passes = bpf.load_xdp_pass()
    programs = {"none": None, "passes all": passes, "filter": bpf.open_pin(FILTER)}
    found: dict[str, list[float]] = {name: [] for name in programs}
    chance = random.Random(5)
    with _pair() as mac, _sink():
        for _ in range(ROUNDS):
            order = list(programs)
            chance.shuffle(order)
            for name in order:
                found[name].append(_rate(tools, mac, programs[name]))
    rates = {name: round(statistics.median(each)) for name, each in found.items()}
    return {
        "packets_per_s": rates,
        "filter_to_none": _ratio(found["filter"], found["none"]),
        "filter_to_passes_all": _ratio(found["filter"], found["passes all"]),
    }


def _ratio(ones: list[float], others: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(ones, others, strict=True)), 3)


def _rate(tools: Path, mac: str, program: int | None) -> float:
    with _in(RECEIVER):
        link = None if program is None else bpf.attach_xdp(program, socket.if_nametoindex("veth0"))
    try:
        before = _received()
        command = [str(tools / "packets"), "veth0", mac, FROM, TO, str(PORT), str(SECONDS)]
        done = subprocess.run(["ip", "netns", "exec", SENDER, *command], stdout=subprocess.PIPE, check=True)
        told = json.loads(done.stdout)
        time.sleep(0.3)  # what is still in a queue
        return (_received() - before) / float(told["seconds"])
    finally:
        if link is not None:
            os.close(link)


def _received() -> int:
    """Packets that came as far as IP."""
    lines = _ip("netns", "exec", RECEIVER, "cat", "/proc/net/snmp").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("InReceives")])


@contextmanager
def _pair() -> Iterator[str]:
    """Two namespaces and a link between them. Gives the hardware address at the receiver's end."""
    for name in (SENDER, RECEIVER):
        _ip("netns", "add", name)
    try:
        _ip(
            "link",
            "add",
            "veth0",
            "netns",
            SENDER,
            "type",
            "veth",
            "peer",
            "name",
            "veth0",
            "netns",
            RECEIVER,
        )
        for name, address in ((SENDER, FROM), (RECEIVER, TO)):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "veth0")
            _ip("-n", name, "link", "set", "veth0", "up")
        mac: str = json.loads(_ip("-n", RECEIVER, "-j", "link", "show", "veth0"))[0]["address"]
        yield mac
    finally:
        for name in (SENDER, RECEIVER):
            _ip("netns", "del", name)


@contextmanager
def _sink() -> Iterator[None]:
    """Somebody at the port who never reads: nothing is answered."""
    with _in(RECEIVER):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind((TO, PORT))
    with sink:
        yield


@contextmanager
def _in(name: str) -> Iterator[None]:
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{name}", os.O_RDONLY)
    os.setns(other, os.CLONE_NEWNET)
    try:
        yield
    finally:
        os.setns(own, os.CLONE_NEWNET)
        os.close(own)
        os.close(other)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], stdout=subprocess.PIPE, text=True, check=False, stderr=sys.stderr)
    if done.returncode != 0:
        raise SystemExit(f"bench: ip {' '.join(words)} failed")
    return done.stdout
