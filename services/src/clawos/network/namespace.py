"""Whose network namespace a socket is in: the kernel's word, not the caller's."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clawos.network.errors import NotASandbox

_SIOCGSKNS = 0x894C
_NS_GET_USERNS = 0xB701
_NS_GET_OWNER_UID = 0xB704
_NETLINK_ROUTE = 0


@contextmanager
def of_route_socket(fd: int, uid: int) -> Iterator[tuple[socket.socket, int]]:
    """A route socket and its network namespace, if a user namespace that `uid` made owns that one.

    What owns the host's namespace, and those of its services, is the first user namespace: never a sandbox.
    Raises NotASandbox.
    """
    with ExitStack() as ours:
        route = ours.enter_context(_route_socket(fd))
        network = _ask(route.fileno(), _SIOCGSKNS)
        ours.callback(os.close, network)
        user = _ask(network, _NS_GET_USERNS)
        ours.callback(os.close, user)
        owner = struct.unpack("=I", fcntl.ioctl(user, _NS_GET_OWNER_UID, b"\0" * 4))[0]
        if owner != uid or os.path.samestat(os.fstat(user), Path("/proc/self/ns/user").stat()):
            raise NotASandbox("the socket's network namespace is not one that the caller made for a sandbox")
        yield route, network


def _route_socket(fd: int) -> socket.socket:
    """By a duplicate, for the giver closes his own."""
    duplicate = os.dup(fd)
    try:
        route = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise NotASandbox("what was handed over is no socket") from None
    if (route.family, route.proto) != (socket.AF_NETLINK, _NETLINK_ROUTE):
        route.close()
        raise NotASandbox("what was handed over is no route socket")
    return route


def _ask(fd: int, what: int) -> int:
    """A descriptor of a namespace that another is in."""
    try:
        return fcntl.ioctl(fd, what)
    except OSError as error:
        raise NotASandbox(f"the socket's namespace is not to be had: {error.strerror}") from None
