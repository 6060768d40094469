"""The kinds of events, by their numbers in `ebpf/events.h`; names as rules and output have them."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    FORK = 1
    EXEC = 2
    EXIT = 3
    OPEN = 4
    CREATE = 5
    UNLINK = 6
    RENAME = 7
    CHMOD = 8
    LINK = 9
    SOCKET = 10
    CONNECT = 11
    BIND = 12
    LISTEN = 13
    ACCEPT = 14
    DNS = 15
    MODULE = 16
    MOUNT = 17
    PTRACE = 18
    SETID = 19
    CAPSET = 20
    NAMESPACE = 21
    BPF = 22
    KILL = 23
    MPROTECT = 24
    DENIED = 25
    ANOMALY = 26
    LOST = 27

    @property
    def word(self) -> str:
        return self.name.lower()


EVERYWHERE = frozenset(
    {
        Kind.FORK,
        Kind.EXEC,
        Kind.EXIT,
        Kind.MODULE,
        Kind.MOUNT,
        Kind.PTRACE,
        Kind.SETID,
        Kind.CAPSET,
        Kind.NAMESPACE,
        Kind.BPF,
        Kind.DENIED,
    }
)
"""Rare and telling: recorded whatever cgroup it happens in. The others only where one is followed."""
