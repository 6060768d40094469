"""Run in the guest, as root: what bpf(2) lets us do. As JSON: name → "ok" or the error's name."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import sys
from collections.abc import Callable

sys.path.insert(0, "/run")

from qa.monitor.in_cgroup import BPF, LIBC, PINS, bpf, opened

_CREATE, _LOAD, _PIN, _ATTACH, _DETACH, _RUN = 0, 5, 6, 8, 9, 10
_PROG_BY_ID, _MAP_BY_ID, _TRACEPOINT, _BTF_LOAD = 13, 14, 17, 18
_LINK_CREATE, _LINK_UPDATE, _LINK_BY_ID, _LINK_NEXT, _LINK_DETACH, _MAP_NEXT, _ENABLE_STATS = (
    28,
    29,
    30,
    31,
    34,
    12,
    32,
)
_INFO = 15
_READ_ONLY = 8
_SOCKET_FILTER = 1


def load(kind: int = _SOCKET_FILTER) -> int:
    """r0 = 0; exit"""
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    terms = ctypes.create_string_buffer(b"GPL")
    return bpf(_LOAD, struct.pack("=IIQQ", kind, 2, ctypes.addressof(code), ctypes.addressof(terms)))


def following(command: int) -> list[int]:
    found: list[int] = []
    last = 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("=III", last, 0, 0), 128)
        try:
            if LIBC.syscall(BPF, command, attributes, 128) < 0:
                raise OSError(ctypes.get_errno(), "")
        except OSError:
            return found
        last = struct.unpack_from("=I", attributes.raw, 4)[0]
        found.append(last)


def links() -> list[int]:
    return [bpf(_LINK_BY_ID, struct.pack("=III", number, 0, 0)) for number in following(_LINK_NEXT)]


def maps() -> dict[str, int]:
    """Ids of all maps, by name; ours have the longest names."""
    found = {}
    for number in following(_MAP_NEXT):
        fd = bpf(_MAP_BY_ID, struct.pack("=III", number, 0, _READ_ONLY))
        info = ctypes.create_string_buffer(128)
        bpf(_INFO, struct.pack("=IIQ", fd, 128, ctypes.addressof(info)))
        found[info.raw[24:40].rstrip(b"\0").decode()] = number
        os.close(fd)
    return found


def write(name: str) -> None:
    """Through a descriptor of the map by its id."""
    os.close(bpf(_MAP_BY_ID, struct.pack("=III", maps()[name[:15]], 0, 0)))


def read(name: str) -> None:
    os.close(bpf(_MAP_BY_ID, struct.pack("=III", maps()[name[:15]], 0, _READ_ONLY)))


ACTS: dict[str, Callable[[], object]] = {
    "load": load,
    "load XDP": lambda: load(6),
    "load types": lambda: bpf(_BTF_LOAD, struct.pack("=QQIII", 0, 0, 0, 0, 0)),
    "attach to a cgroup": lambda: bpf(_ATTACH, struct.pack("=IIII", os.open("/sys/fs/cgroup", 0), 0, 0, 0)),
    "detach from a cgroup": lambda: bpf(_DETACH, struct.pack("=IIII", os.open("/sys/fs/cgroup", 0), 0, 0, 0)),
    "attach to a tracepoint": lambda: bpf(_TRACEPOINT, struct.pack("=QI", 0, 0)),
    "make a link": lambda: bpf(_LINK_CREATE, struct.pack("=IIII", 0, 0, 0, 0)),
    "change a link": lambda: bpf(_LINK_UPDATE, struct.pack("=IIII", links()[0], 0, 0, 0)),
    "detach a link": lambda: bpf(_LINK_DETACH, struct.pack("=I", links()[0])),
    "pin": lambda: bpf(_PIN, struct.pack("=QII", 0, 0, 0)),
    "run": lambda: bpf(_RUN, struct.pack("=II", 0, 0)),
    "make a map": lambda: bpf(_CREATE, struct.pack("=IIII", 2, 4, 4, 1)),
    "write the rules": lambda: write("enforce_paths"),
    "write the sets": lambda: write("enforce_sets"),
    "write where the isolator is": lambda: write("isolators"),
    "write the guard": lambda: write("guard"),
    "write the guard's maps": lambda: write("guard_maps"),
    "write XDP's rules": lambda: write("egress_rules"),
    "write what is recorded": lambda: write("kinds"),
    "open the rules to write": lambda: opened(PINS / "maps" / "enforce_paths"),
    "open the ring": lambda: opened(PINS / "monitor" / "events"),
    "open a call's sets": lambda: opened(PINS / "monitor" / "guest_sets"),
    "read the rules": lambda: read("enforce_paths"),
    "look at programs": lambda: following(11),
}


def main() -> None:
    told = {}
    for name, act in ACTS.items():
        try:
            act()
            told[name] = "ok"
        except OSError as error:
            told[name] = errno.errorcode[error.errno or 0]
        except KeyError as error:
            told[name] = f"no map {error}"
    print(json.dumps(told))


if __name__ == "__main__":
    main()
