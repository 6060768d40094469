"""veth pairs between sandboxes and the segment, by rtnetlink.

The segment's end has no address of its own: there is nothing on it that a sandbox could reach. A route leads
to the one address at the other end, and the proxy's address is the loopback's. No address of IPv6 is made.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, nlmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from clawos.network.errors import LinkRefused
from clawos.network.namespace import of_route_socket
from clawos.network.netlink import request, send
from clawos.network.ports import NAME_PREFIX, Link

INSIDE = "eth0"
_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24
_LOOPBACK = 1
_UP = 1
_ADDR_GEN_MODE_NONE = 1
_ONE_ADDRESS = 32
_MAIN_TABLE, _STATIC, _SCOPE_HOST, _SCOPE_LINK, _UNICAST = 254, 4, 254, 253, 1


class Links:
    """The links of the network namespace that we run in."""

    def __init__(self) -> None:
        self._route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)

    def clear(self) -> None:
        for name in self.names():
            self._remove(name)

    def open(self, proxy: str) -> None:
        send(self._route, [_raise(_LOOPBACK), _address(_LOOPBACK, proxy, _SCOPE_HOST)])

    def close(self) -> None:
        self._route.close()

    def names(self) -> set[str]:
        return {name for _, name in socket.if_nameindex() if name.startswith(NAME_PREFIX)}

    def attach(self, link: Link, proxy: str, route: int, uid: int, program: int | None) -> None:
        with of_route_socket(route, uid) as (inside, namespace):
            self._make(link, namespace)
            try:
                self._finish(link, proxy, inside, program)
            except BaseException:
                self._remove(link.name)
                raise

    def _remove(self, name: str) -> None:
        try:
            send(self._route, [_remove(name)])
        except OSError as error:
            if error.errno != errno.ENODEV:  # it ended by itself
                raise

    def _make(self, link: Link, namespace: int) -> None:
        try:
            send(self._route, [_pair(link, namespace)])
        except OSError as error:
            raise LinkRefused("pair", error) from None

    def _finish(self, link: Link, proxy: str, inside: socket.socket, program: int | None) -> None:
        """Both ends, up only once everything about them is settled."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("ipv6", lambda: _without_ipv6(self._route, link.index)),
            ("ipv6", lambda: _without_ipv6(inside, link.index)),
            ("segment", lambda: send(self._route, [_raise(link.index), _to(link.index, link.address)])),
            (
                "sandbox",
                lambda: send(
                    inside,
                    [
                        _raise(_LOOPBACK),
                        _raise(link.index),
                        _address(link.index, link.address, _SCOPE_LINK),
                        _to(link.index, proxy, link.address),
                    ],
                ),
            ),
        ]
        if program is not None:
            steps.insert(0, ("program", lambda: send(self._route, [_program(link.index, program)])))
        for step, do in steps:
            try:
                do()
            except OSError as error:
                raise LinkRefused(step, error) from None


def _pair(link: Link, namespace: int) -> nlmsg:
    """Both ends at once, the other one there from the start: it never shows in the segment."""
    there = {
        "index": link.index,
        "attrs": [["IFLA_IFNAME", INSIDE], ["IFLA_NET_NS_FD", namespace]],
    }
    info = [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", {"attrs": [["VETH_INFO_PEER", there]]}]]
    attrs = [["IFLA_IFNAME", link.name], ["IFLA_LINKINFO", {"attrs": info}]]
    return request(ifinfmsg(), _NEWLINK, NLM_F_CREATE | NLM_F_EXCL, index=link.index, attrs=attrs)


def _remove(name: str) -> nlmsg:
    return request(ifinfmsg(), _DELLINK, attrs=[["IFLA_IFNAME", name]])


def _raise(index: int) -> nlmsg:
    return request(ifinfmsg(), _NEWLINK, index=index, flags=_UP, change=_UP)


def _program(index: int, program: int) -> nlmsg:
    return request(
        ifinfmsg(), _NEWLINK, index=index, attrs=[["IFLA_XDP", {"attrs": [["IFLA_XDP_FD", program]]}]]
    )


def _without_ipv6(route: socket.socket, index: int) -> None:
    """No link-local address. A kernel without IPv6 knows no such setting, and needs none."""
    mode = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}
    attrs = [["IFLA_AF_SPEC", {"attrs": [["AF_INET6", mode]]}]]
    try:
        send(route, [request(ifinfmsg(), _NEWLINK, index=index, attrs=attrs)])
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise


def _address(index: int, address: str, scope: int) -> nlmsg:
    return request(
        ifaddrmsg(),
        _NEWADDR,
        NLM_F_CREATE | NLM_F_REPLACE,
        family=socket.AF_INET,
        prefixlen=_ONE_ADDRESS,
        index=index,
        scope=scope,
        attrs=[["IFA_LOCAL", address], ["IFA_ADDRESS", address]],
    )


def _to(index: int, address: str, source: str | None = None) -> nlmsg:
    """A route to one address, straight out of a link."""
    attrs: list[list[object]] = [["RTA_DST", address], ["RTA_OIF", index]]
    return request(
        rtmsg(),
        _NEWROUTE,
        NLM_F_CREATE | NLM_F_EXCL,
        family=socket.AF_INET,
        dst_len=_ONE_ADDRESS,
        table=_MAIN_TABLE,
        proto=_STATIC,
        scope=_SCOPE_LINK,
        type=_UNICAST,
        attrs=[*attrs, *([["RTA_PREFSRC", source]] if source else [])],
    )
