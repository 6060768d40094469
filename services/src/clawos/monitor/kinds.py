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

HOOKS = {
    1: "file_open",
    2: "bprm_check_security",
    3: "socket_connect",
    4: "bpf",
    5: "kernel_module_request",
    6: "ptrace_access_check",
    7: "sb_mount",
    8: "socket_bind",
    9: "socket_create",
    10: "userns_create",
    11: "inode_unlink",
}
"""Where the enforcement says no, by enum hook."""
