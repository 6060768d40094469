"""System calls that no tool has any business with, each in its simplest form that the kernel would carry out.

Where carrying it out would harm the machine of the positive control, the arguments are such that the kernel,
once the call has reached it and the caller's rights have been looked at, finds fault with them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import struct
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

from qa.escape.probe.act import Act, Argument, Buffer, call, call_number

AT_FDCWD = -100
NAMESPACES = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "net": 0x40000000,
    "pid": 0x20000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}
CLONE_THROUGH_CLONE = set(NAMESPACES) - {"time"}
"""CLONE_NEWTIME shares its bit with the exit signal, so only unshare and clone3 know it."""
SIGCHLD = 17
FAMILIES = range(46)
X32_BIT = 0x40000000
MS_REMOUNT, MS_BIND = 0x20, 0x1000


def room(size: int) -> Buffer:
    return ctypes.create_string_buffer(size)


def filled(data: bytes) -> Buffer:
    return ctypes.create_string_buffer(data, len(data))


def vector(data: Buffer) -> Buffer:
    """One struct iovec over the buffer."""
    return filled(struct.pack("QQ", ctypes.addressof(data), len(data)))


def acts(_: dict[str, Any]) -> dict[str, Act]:
    found: dict[str, Act] = {
        name: partial(_quiet, partial(call, name, *arguments)) for name, arguments in PLAIN.items()
    }
    for name, flag in NAMESPACES.items():
        found[f"unshare {name}"] = partial(_quiet, partial(call, "unshare", flag))
        if name in CLONE_THROUGH_CLONE:
            found[f"clone {name}"] = partial(_clone, flag)
        found[f"clone3 {name}"] = partial(_clone3, flag)
    for family in FAMILIES:
        found[f"socket {family}"] = partial(_family, family)
    return found | {name: partial(_quiet, do) for name, do in _prepared().items()}


def _prepared() -> dict[str, Act]:
    """Those that need something first, or are asked in a way of their own."""
    return {
        "clone3": partial(_clone3, 0),
        "kexec_load": partial(call, "kexec_load", 0, 0, None, 0),
        "kexec_file_load": partial(call, "kexec_file_load", -1, -1, 0, None, -1),
        "mount": _mount,
        "mount cgroup2": partial(_mount, b"cgroup2"),
        "mount proc": partial(_mount, b"proc"),
        "release_agent": _release_agent,
        "remount root": partial(call, "mount", None, b"/", None, MS_REMOUNT | MS_BIND, None),
        "open_by_handle_at": partial(call, "open_by_handle_at", -1, filled(b"\x08\0\0\0" + bytes(12)), 0),
        "name_to_handle_at": partial(
            call,
            "name_to_handle_at",
            AT_FDCWD,
            b"/tmp",
            filled(b"\x80\0\0\0" + bytes(140)),
            room(4),
            0,
        ),
        "process_vm_readv": partial(_process_vm, "process_vm_readv"),
        "process_vm_writev": partial(_process_vm, "process_vm_writev"),
        "vmsplice": partial(_pipes, "vmsplice"),
        "splice": partial(_pipes, "splice"),
        "tee": partial(_pipes, "tee"),
        "setns": _setns,
        "ptrace": partial(call, "ptrace", 0, 0, 0, 0),
        "mknod": partial(_new_node, "mknod"),
        "mknodat": partial(_new_node, "mknodat"),
        "mkfifo": _fifo,
        **{name: partial(_owner, name) for name in ("chown", "lchown", "fchown", "fchownat")},
        **{name: partial(_own_ids, name) for name in OWN_IDS},
        "chmod set-user-id": partial(_mode, "chmod"),
        "fchmod set-user-id": partial(_mode, "fchmod"),
        "fchmodat set-user-id": partial(_mode, "fchmodat"),
        "socket raw": partial(call, "socket", 2, 3, 1),
        "socket packet": partial(call, "socket", 17, 3, 0),
        "socketpair tipc": partial(call, "socketpair", 30, 1, 0, room(8)),
        "socket 64-bit family": partial(call, "socket", 1 << 32 | 2, 1, 0),
        "TIOCSTI": partial(_terminal, 0x5412),
        "TIOCSTI 64-bit": partial(_terminal, 0xFFFFFFFF00005412),
        "TIOCLINUX": partial(_console, 0x541C),
        "TIOCLINUX 64-bit": partial(_console, 0xFFFFFFFF0000541C),
        "TIOCSETD": partial(_terminal, 0x5423),
        "x32 getpid": partial(call_number, X32_BIT | 39),
        "prlimit64 upwards": _more_files,
        "setpriority upwards": partial(call, "setpriority", 0, 0, -10),
        "sched_setscheduler": partial(call, "sched_setscheduler", 0, 1, filled(struct.pack("i", 1))),
        "credentials of root": _credentials,
        "mmap writable and executable": _writable_code,
        "mprotect executable": _made_executable,
    }


def _quiet(do: Act) -> None:
    """A result that is a descriptor, a pid or a size says no more than that it worked."""
    do()


_WORD = filled(struct.pack("Q", 0))
PLAIN: dict[str, tuple[Argument, ...]] = {
    "bpf": (0, filled(struct.pack("IIII", 2, 4, 4, 1) + bytes(112)), 128),
    "perf_event_open": (filled(struct.pack("IIQ", 1, 128, 0) + bytes(112)), 0, -1, -1, 0),
    "process_madvise": (-1, room(16), 1, 20, 0),
    "kcmp": (os.getpid(), os.getpid(), 0, 0, 0),
    "pidfd_getfd": (-1, 0, 0),
    "pidfd_open": (os.getpid(), 0),
    "io_uring_setup": (1, room(120)),
    "io_uring_enter": (-1, 0, 0, 0, None, 0),
    "io_uring_register": (-1, 0, None, 0),
    "userfaultfd": (1,),
    "keyctl": (0, -3, 0),
    "add_key": (b"user", b"clawos-escape", b"x", 1, -2),
    "request_key": (b"user", b"clawos-escape-none", None, 0),
    "umount2": (b"/nonexistent", 0),
    "pivot_root": (b"/", b"/"),
    "chroot": (b"/",),
    "open_tree": (AT_FDCWD, b"/", 1),
    "move_mount": (-1, b"", -1, b"", 4),
    "fsopen": (b"tmpfs", 0),
    "fsconfig": (-1, 6, None, None, 0),
    "fsmount": (-1, 0, 0),
    "fspick": (AT_FDCWD, b"/", 0),
    "mount_setattr": (AT_FDCWD, b"/", 0, room(32), 32),
    "init_module": (b"", 0, b""),
    "finit_module": (-1, b"", 0),
    "delete_module": (b"clawos_none", 0o4000),
    "reboot": (0, 0, 0, None),
    "swapon": (b"/nonexistent", 0),
    "swapoff": (b"/nonexistent",),
    "acct": (b"/nonexistent",),
    "quotactl": (0x800001 << 8, None, 0, None),
    "quotactl_fd": (-1, 0x800001 << 8, 0, None),
    "syslog": (10, None, 0),
    "iopl": (4,),
    "ioperm": (0, 0, 1),
    "modify_ldt": (0, room(64), 64),
    "fanotify_init": (0, 0),
    "fanotify_mark": (-1, 1, 0, AT_FDCWD, b"/"),
    "lookup_dcookie": (0, room(64), 64),
    "settimeofday": (None, None),
    "clock_settime": (0, filled(struct.pack("qq", 0, -1))),
    "adjtimex": (room(208),),
    "clock_adjtime": (0, room(208)),
    "sethostname": (b"escaped", 7),
    "setdomainname": (b"escaped", 7),
    "vhangup": (),
    "seccomp": (2, 0, filled(struct.pack("I", 0))),
    "landlock_create_ruleset": (None, 0, 1),
    "landlock_add_rule": (-1, 1, room(12), 0),
    "landlock_restrict_self": (-1, 0),
    "capset": (filled(struct.pack("Ii", 0x20080522, 0)), room(24)),
    "move_pages": (0, 0, None, None, None, 0),
    "migrate_pages": (0, 64, _WORD, _WORD),
    "memfd_secret": (0,),
    "memfd_create": (b"code", 0),
    "personality": (0x0040000,),
    "shmget": (0x636C6177, 4096, 0o1600),
    "semget": (0x636C6177, 1, 0o1600),
    "msgget": (0x636C6177, 0o1600),
    "mq_open": (b"escape", 0o102, 0o600, None),
    "prctl PR_SET_SECUREBITS": (28, 0, 0, 0, 0),
    "prctl PR_SET_KEEPCAPS": (8, 1, 0, 0, 0),
    "prctl PR_SET_MM": (35, 99, 0, 0, 0),
    "prctl PR_SET_PTRACER": (0x59616D61, -1, 0, 0, 0),
    "prctl PR_SET_SECCOMP": (22, 99, 0, 0, 0),
    "prctl PR_CAP_AMBIENT_CLEAR_ALL": (47, 4, 0, 0, 0),
    "prctl PR_SET_CHILD_SUBREAPER": (36, 1, 0, 0, 0),
}
OWN_IDS = {
    "setuid": 1,
    "setgid": 1,
    "setreuid": 2,
    "setregid": 2,
    "setresuid": 3,
    "setresgid": 3,
    "setfsuid": 1,
    "setfsgid": 1,
    "setgroups": 0,
}


def _clone(flag: int) -> None:
    if call("clone", flag | SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)


def _clone3(flag: int) -> None:
    arguments = filled(struct.pack("QQQQQ", flag, 0, 0, 0, SIGCHLD) + bytes(24))
    if call("clone3", arguments, 64) == 0:
        os._exit(0)


def _setns() -> None:
    with open("/proc/self/ns/uts") as name_space:
        call("setns", name_space.fileno(), 0)


def _family(family: int) -> None:
    """Any type that the family has: the last word is the most telling one."""
    for kind in (1, 2, 5, 3):
        with contextlib.suppress(OSError):
            call("socket", family, kind, 0)
            return
    call("socket", family, 1, 0)


def _mount(kind: bytes = b"tmpfs") -> None:
    with contextlib.suppress(OSError):
        call("unshare", NAMESPACES["mnt"])
    call("mount", b"none", b"/tmp", kind, 0, None)


def _release_agent() -> None:
    """CVE-2022-0492, on a hierarchy of cgroup v1 of one's own."""
    with contextlib.suppress(OSError):
        call("unshare", NAMESPACES["mnt"])
    call("mount", b"none", b"/tmp", b"cgroup", 0, b"none,name=escape")
    os.close(os.open("/tmp/release_agent", os.O_WRONLY))


def _process_vm(name: str) -> None:
    mine, theirs = room(8), room(8)
    call(name, os.getpid(), vector(mine), 1, vector(theirs), 1, 0)


def _pipes(name: str) -> None:
    read_end, write_end = os.pipe()
    _, other = os.pipe()
    os.write(write_end, b"x")
    data = filled(b"x")
    match name:
        case "vmsplice":
            call(name, write_end, vector(data), 1, 0)
        case "splice":
            call(name, read_end, None, other, None, 1, 0)
        case _:
            call(name, read_end, other, 1, 0)


@contextlib.contextmanager
def _file() -> Iterator[Any]:
    with tempfile.NamedTemporaryFile(dir="/tmp") as made:
        yield made


def _new_node(name: str) -> None:
    """The null device: harmless to have, and as much a device as any other."""
    path = f"/tmp/node-{os.getpid()}".encode()
    place = (AT_FDCWD, path) if name == "mknodat" else (path,)
    try:
        call(name, *place, 0o020666, 1 << 8 | 3)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _fifo() -> None:
    path = f"/tmp/fifo-{os.getpid()}"
    try:
        os.mkfifo(path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _owner(name: str) -> None:
    with _file() as made:
        ids = (os.getuid(), os.getgid())
        match name:
            case "fchown":
                call(name, made.fileno(), *ids)
            case "fchownat":
                call(name, AT_FDCWD, made.name.encode(), *ids, 0)
            case _:
                call(name, made.name.encode(), *ids)


def _own_ids(name: str) -> None:
    """To what one is already: anybody may, but for the filter."""
    own = os.getgid() if "g" in name.removeprefix("set") else os.getuid()
    call(name, *[own] * OWN_IDS[name] or (0, None))


def _mode(name: str) -> None:
    with _file() as made:
        match name:
            case "fchmod":
                call(name, made.fileno(), 0o4755)
            case "fchmodat":
                call(name, AT_FDCWD, made.name.encode(), 0o4755)
            case _:
                call(name, made.name.encode(), 0o4755)


def _terminal(request: int) -> None:
    """On a terminal of our own where there can be one, else on standard output."""
    try:
        _, terminal = os.openpty()
    except OSError:
        terminal = 1
    call("ioctl", terminal, request, filled(struct.pack("i", 0)))


def _console(request: int) -> None:
    """The virtual console's own door: ask for the state of the shift keys."""
    try:
        console = os.open("/dev/tty0", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        console = 1
    call("ioctl", console, request, filled(b"\x06"))


def _more_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    call("prlimit64", 0, int(resource.RLIMIT_NOFILE), filled(struct.pack("QQ", soft, hard + 1)), None)


def _credentials() -> None:
    """A Unix socket's word for who is at its other end."""
    ours, _ = socket.socketpair()
    claimed = struct.pack("iII", os.getpid(), 0, 0)
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, claimed)])


PROT_READ, PROT_WRITE, PROT_EXEC, PRIVATE_ANONYMOUS = 1, 2, 4, 0x22


def _writable_code() -> None:
    call("mmap", 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, PRIVATE_ANONYMOUS, -1, 0)


def _made_executable() -> None:
    page = call("mmap", 0, 4096, PROT_READ | PROT_WRITE, PRIVATE_ANONYMOUS, -1, 0)
    call("mprotect", page, 4096, PROT_READ | PROT_EXEC)


def unnamed(facts: dict[str, Any]) -> dict[str, Act]:
    """The sweep: ranges of numbers that the profile does not name; arguments that mean nothing anywhere."""
    numbers = (number for first, last in facts["unnamed"] for number in range(first, last + 1))
    return {str(n): partial(_quiet, partial(call_number, n, *[-1] * 6)) for n in numbers}
