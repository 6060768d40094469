"""Attach the pinned XDP program to the machine's uplink: python3 -I -m clawos.monitor.uplink INTERFACE

In the driver where it can, else in the kernel's generic part, which is slower and judges the same. By
rtnetlink: the interface holds the program, for as long as it is there or until root takes it off.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from pathlib import Path

PROGRAM = Path("/sys/fs/bpf/clawos/uplink_xdp")

_BPF = {"x86_64": 321, "aarch64": 280}
_OBJ_GET, _READ_ONLY = 7, 1 << 3
_SETLINK, _REQUEST, _ACKNOWLEDGE, _ERROR = 19, 1, 4, 2
_NAME, _XDP, _NESTED, _XDP_FD, _XDP_FLAGS = 3, 43, 1 << 15, 1, 3
_ONLY_IF_NONE, _GENERIC, _DRIVER = 1, 2, 4
_HEADER = struct.Struct("=IHHII")
_INTERFACE = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_BYTES = 65536


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python3 -m clawos.monitor.uplink INTERFACE", file=sys.stderr)
        return 2
    try:
        print(f"clawos-uplink: {arguments[0]}: {attach(arguments[0], PROGRAM)}")
    except OSError as error:
        print(f"clawos-uplink: {arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0


def attach(interface: str, program: Path) -> str:
    """Returns how it is attached. Raises OSError."""
    fd = _open(program)
    try:
        try:
            _set(interface, fd, _DRIVER)
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EEXIST):
                return "a program is attached already"
            _set(interface, fd, _GENERIC)
            return "attached in generic mode"
        return "attached in the driver"
    finally:
        os.close(fd)


def _open(program: Path) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    name = ctypes.create_string_buffer(bytes(program))
    attributes = struct.pack("=QII", ctypes.addressof(name), 0, _READ_ONLY)
    fd: int = libc.syscall(_BPF[platform.machine()], _OBJ_GET, attributes, len(attributes))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def _set(interface: str, program: int, mode: int) -> None:
    """By its name: to ask for its index takes a socket of another family."""
    attributes = _attribute(_XDP_FD, struct.pack("=i", program))
    attributes += _attribute(_XDP_FLAGS, struct.pack("=I", mode | _ONLY_IF_NONE))
    body = _INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_NAME, interface.encode() + b"\0")
    body += _attribute(_XDP | _NESTED, attributes)
    header = _HEADER.pack(_HEADER.size + len(body), _SETLINK, _REQUEST | _ACKNOWLEDGE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        netlink.send(header + body)
        answer = netlink.recv(_ANSWER_BYTES)
    kind: int = _HEADER.unpack_from(answer)[1]
    number: int = struct.unpack_from("=i", answer, _HEADER.size)[0]
    if kind != _ERROR or number:
        raise OSError(-number or errno.EPROTO, os.strerror(-number or errno.EPROTO))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
