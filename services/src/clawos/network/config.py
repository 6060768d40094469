"""Settings of the network room: /etc/clawos/network.toml over these defaults."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated

import msgspec

from clawos.core.names import Room
from clawos.core.parse import Record

ROOM = Room("network")

_UNUSABLE = 2
"""The first and the last address of a range."""


class Config(Record, frozen=True):
    proxy: str = "198.19.255.1"
    """Where the egress service listens. RFC 2544 keeps 198.18.0.0/15 for tests: nobody routes it."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8118
    sandboxes: str = "198.18.0.0/16"
    """Their addresses, each for one; the range is gone through before one comes again."""
    sandboxes_max: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 256
    """At a time. The isolator runs 256 calls at most, and keeps a few namespaces ready."""
    program: Path = Path("/run/clawos-bpf/egress_xdp")
    """A pinned XDP program; below /sys/fs/bpf/clawos outside this unit."""
    nft: Path = Path("/usr/sbin/nft")

    def __post_init__(self) -> None:
        if IPv4Address(self.proxy) in self.range:
            raise ValueError(f"proxy {self.proxy} is one of the sandboxes' addresses, {self.sandboxes}")
        if self.range.num_addresses - _UNUSABLE <= self.sandboxes_max:
            raise ValueError(f"sandboxes: {self.sandboxes} has too few addresses for {self.sandboxes_max}")

    @property
    def range(self) -> IPv4Network:
        return IPv4Network(self.sandboxes)

    @property
    def slots(self) -> int:
        """How many addresses there are; the first is the slot 1's."""
        return self.range.num_addresses - _UNUSABLE
