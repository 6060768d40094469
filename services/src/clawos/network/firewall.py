"""The rules between sandboxes and the egress service, by nft(8): all is dropped but the way to the proxy.

The room runs in a network namespace of its own, in which no other traffic exists and no route leads on; the
rules say the same from another corner of the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from clawos.core import run
from clawos.network.errors import FirewallChanged
from clawos.network.ports import NAME_PREFIX

TABLE = "clawos"
_TIMEOUT_S = 60
_NETLINK_NETFILTER = 12
_GETGEN = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_NEWGEN = 10 << 8 | 15
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NFTABLES_CHANGES = 7  # NFNLGRP_NFTABLES
_REQUEST = 1
_ANSWER_BYTES = 65536
_HEADERS = struct.Struct("=IHHIIBBH")
"""struct nlmsghdr and struct nfgenmsg"""
_GEN_ID = struct.Struct(">4xI")
"""The first attribute of the answer: its head, and the number, big-endian."""


def rules(proxy: str, port: int) -> str:
    """One transaction: at no instant is there a table without its rules."""
    return f"""destroy table inet {TABLE}
table inet {TABLE} {{
    chain input {{
        type filter hook input priority filter; policy drop;
        # "fib": the sender's address must be the one that this very link leads to
        iifname "{NAME_PREFIX}*" ip daddr {proxy} tcp dport {port} ct state new,established fib saddr . iif oif exists counter accept
        counter comment "dropped"
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        counter comment "dropped"
    }}
    chain output {{
        type filter hook output priority filter; policy drop;
        oifname "{NAME_PREFIX}*" ip saddr {proxy} tcp sport {port} ct state established counter accept
        counter comment "dropped"
    }}
}}
"""  # noqa: E501 # as nft has it: a rule is a line


def _netfilter() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    made.bind((0, 0))  # what has no address of its own yet is passed over when changes are told
    return made


class Nftables:
    def __init__(self, nft: Path) -> None:
        self._nft = nft
        self._netlink, self._told = _netfilter(), _netfilter()
        self._loaded: int | None = None

    def close(self) -> None:
        self._netlink.close()
        asyncio.get_running_loop().remove_reader(self._told)
        self._told.close()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call back when the rules are not those any more: at once, and for every further change."""
        self._told.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_CHANGES)
        asyncio.get_running_loop().add_reader(self._told, self._look, changed)

    def _look(self, changed: Callable[[], None]) -> None:
        # What is told does not count, and may be more than was kept; what is so now does.
        with contextlib.suppress(OSError):
            while self._told.recv(_ANSWER_BYTES, socket.MSG_DONTWAIT):
                pass
        try:
            self.check()
        except FirewallChanged:
            changed()

    async def load(self, proxy: str, port: int) -> None:
        await run.run([self._nft, rules(proxy, port)], timeout_s=_TIMEOUT_S)
        self._loaded = self._generation()

    def check(self) -> None:
        """By the generation, which the kernel counts up with each change of any rule in this namespace."""
        try:
            generation = self._generation()
        except OSError:
            generation = None
        if generation is None or generation != self._loaded:
            raise FirewallChanged

    def _generation(self) -> int | None:
        """None where the kernel's answer is none."""
        message = _HEADERS.pack(_HEADERS.size, _GETGEN, _REQUEST, 0, 0, socket.AF_UNSPEC, 0, 0)
        self._netlink.sendto(message, socket.MSG_DONTWAIT, (0, 0))
        answer = self._netlink.recv(_ANSWER_BYTES, socket.MSG_DONTWAIT)
        if len(answer) < _HEADERS.size + _GEN_ID.size or _HEADERS.unpack_from(answer)[1] != _NEWGEN:
            return None
        number: int = _GEN_ID.unpack_from(answer, _HEADERS.size)[0]
        return number
