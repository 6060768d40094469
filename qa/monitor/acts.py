"""In the guest, as root: do each act in a cgroup of which all is recorded, and tell which events came of it.

Not in a sandbox's: the enforcement would stop half of them there.

Prints a JSON object a line: {"act", "expected", "events", "who"}. `expected` are the events that must be
there, each exactly once, by their kind and those of their fields that tell them from others of the kind.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from clawos.monitor.config import Followed
from clawos.monitor.event import Event
from clawos.monitor.follow import follow
from clawos.monitor.kinds import Kind
from clawos.monitor.libbpf import Map
from clawos.monitor.source import PinnedRing

PINS = Path("/sys/fs/bpf/clawos/monitor")
TREE = Path("/sys/fs/cgroup")
FOLLOWED = "acts-followed"
WORK = Path("/tmp/acts")
NOBODY = 65534
MINOR_BITS = 20
UNIX_PATH_MAX = 108
CLONE_NEWNS, CLONE_NEWUTS = 0x20000, 0x4000000
SYSCALLS = {
    "x86_64": {"ptrace": 101, "capget": 125, "capset": 126, "bpf": 321, "setns": 308, "move_mount": 429}
    | {"fsopen": 430, "fsconfig": 431, "fsmount": 432, "process_vm_readv": 310, "pkey_mprotect": 329},
    "aarch64": {"ptrace": 117, "capget": 90, "capset": 91, "bpf": 280, "setns": 268, "move_mount": 429}
    | {"fsopen": 430, "fsconfig": 431, "fsmount": 432, "process_vm_readv": 270, "pkey_mprotect": 288},
}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)

Expected = list[tuple[str, dict[str, Any]]]
Act = Callable[[], Expected]
ACTS: dict[str, Act] = {}


def act(function: Act) -> Act:
    ACTS[function.__name__] = function
    return function


def call(name: str, *arguments: Any) -> int:
    done: int = libc.syscall(SYSCALLS[name], *arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return done


def ended(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def run(*argv: str, **environment: str) -> int:
    """In a child, without a shell or an import in between. Returns its pid."""
    pid = os.fork()
    if not pid:
        os.execve(argv[0], argv, environment)
    ended(pid)
    return pid


def child_that(does: Callable[[], object]) -> int:
    """Returns its pid once it has ended."""
    pid = os.fork()
    if not pid:
        try:
            does()
        finally:
            os._exit(0)
    ended(pid)
    return pid


def device(path: str) -> int:
    """As the kernel itself writes it."""
    number = os.stat(path).st_dev
    return os.major(number) << MINOR_BITS | os.minor(number)


TRUE = os.path.realpath("/bin/true")


# --- processes ---


@act
def fork() -> Expected:
    pid = child_that(lambda: None)
    return [("fork", {"child_pid": pid}), ("exit", {"code": 0, "signal": 0, "tgid": pid})]


@act
def thread_is_no_fork() -> Expected:
    import threading

    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    return []


@act
def execute() -> Expected:
    pid = run(TRUE, "one", "two words", "", SECRET="of the environment")
    made = os.stat(TRUE)
    own = {"path": TRUE, "args": [TRUE, "one", "two words", ""], "args_truncated": False, "tgid": pid}
    own |= {"loader": [], "links": made.st_nlink, "inode": made.st_ino, "device": device(TRUE)}
    return [("exec", own | {"comm": Path(TRUE).name, "ancestors_pids": ancestors()})]


@act
def execute_with_words_for_the_linker() -> Expected:
    pid = run(TRUE, LD_PRELOAD="libm.so.6", GLIBC_TUNABLES="glibc.rtld.optional_static_tls=512", LANG="C")
    return [("exec", {"tgid": pid, "args": [TRUE], "loader": ["LD_PRELOAD", "GLIBC_TUNABLES"]})]


def ancestors() -> list[int]:
    """Of a child of ours: us, and on to the first."""
    found: list[int] = []
    pid = os.getpid()
    while pid and len(found) < 8:
        found.append(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


@act
def execute_with_many_arguments() -> Expected:
    pid = run(TRUE, *["x" * 99] * 50, SECRET="of the environment")
    words = b"".join(word.encode() + b"\0" for word in [TRUE, *["x" * 99] * 50])[:2048]
    args = [word.decode() for word in words.removesuffix(b"\0").split(b"\0")]
    return [("exec", {"tgid": pid, "args": args, "args_truncated": True})]


@act
def execute_to_the_last_byte() -> Expected:
    """The arguments fill what is read of them exactly; what comes next is the environment."""
    room = 2048 - len(TRUE) - 2
    pid = run(TRUE, "x" * room, SECRET="of the environment")
    return [("exec", {"tgid": pid, "args": [TRUE, "x" * room], "args_truncated": False})]


@act
def execute_without_a_file() -> Expected:
    fd = os.memfd_create("gone")
    os.write(fd, Path(TRUE).read_bytes())
    pid = child_that(lambda: os.execve(fd, ["hidden"], {}))
    os.close(fd)
    return [("exec", {"tgid": pid, "links": 0, "args": ["hidden"], "path": "/memfd:gone (deleted)"})]


@act
def execute_a_script() -> Expected:
    script = WORK / "script"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    pid = run(str(script), "word")
    shell = os.path.realpath("/bin/sh")
    return [
        ("exec", {"tgid": pid, "path": shell, "args": ["/bin/sh", str(script), "word"]}),
        ("exit", {"tgid": pid, "code": 3, "signal": 0}),
    ]


@act
def execute_what_is_not_there() -> Expected:
    with suppress(FileNotFoundError):
        os.execv("/nowhere", ["nowhere"])
    return []


@act
def killed() -> Expected:
    pid = os.fork()
    if not pid:
        signal.pause()
    os.kill(pid, signal.SIGTERM)
    ended(pid)
    return [
        ("exit", {"tgid": pid, "code": 0, "signal": signal.SIGTERM}),
        ("kill", {"target": pid, "signal": signal.SIGTERM}),
    ]


@act
def kill_asks() -> Expected:
    os.kill(os.getppid(), 0)
    return []


# --- files ---


def path(name: str) -> str:
    return str(WORK / name)


@act
def open_to_read() -> Expected:
    Path(path("r")).touch(mode=0o640)
    os.close(os.open(path("r"), os.O_RDONLY | os.O_CLOEXEC))
    return [("open", {"path": path("r"), "write": False, "mode": 0o100640})]


@act
def open_to_write() -> Expected:
    Path(path("w")).touch(mode=0o600)
    os.close(os.open(path("w"), os.O_RDWR | os.O_APPEND))
    large_file = 0o100000
    flags = os.O_RDWR | os.O_APPEND | large_file
    return [("open", {"path": path("w"), "write": True, "mode": 0o100600, "flags": flags})]


@act
def open_what_is_not_there() -> Expected:
    with suppress(FileNotFoundError):
        os.open(path("nowhere"), os.O_RDONLY)
    return []


@act
def open_deep() -> Expected:
    """A path longer than what fits: the name alone."""
    here = os.getcwd()
    os.chdir(WORK)
    for _ in range(20):
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    os.close(os.open("deep", os.O_CREAT | os.O_WRONLY))
    os.chdir(here)
    return [("create", {"path": "deep"}), ("open", {"path": "deep", "write": True})]


@act
def create_file() -> Expected:
    os.close(os.open(path("new"), os.O_CREAT | os.O_WRONLY, 0o600))
    return [
        ("create", {"path": path("new"), "mode": 0o100600}),
        ("open", {"path": path("new"), "write": True}),
    ]


@act
def create_no_utf8() -> Expected:
    os.close(os.open(os.fsencode(path("")) + b"/\xff\n", os.O_CREAT | os.O_WRONLY, 0o600))
    return [("create", {"path": path("") + "/\\xff\n"})]


@act
def create_directory() -> Expected:
    os.mkdir(path("dir"), 0o700)
    with suppress(FileExistsError):
        os.mkdir(path("dir"), 0o700)
    return [("create", {"path": path("dir"), "mode": 0o40700})]


@act
def create_in_the_root() -> Expected:
    os.chroot(WORK)
    os.mkdir("/in-root")
    return [("create", {"path": "/in-root"})]


@act
def create_fifo() -> Expected:
    os.mkfifo(path("fifo"), 0o600)
    return [("create", {"path": path("fifo"), "mode": 0o10600})]


@act
def remove_file() -> Expected:
    Path(path("gone")).touch()
    os.unlink(path("gone"))
    with suppress(FileNotFoundError):
        os.unlink(path("gone"))
    return [("unlink", {"path": path("gone"), "directory": False})]


@act
def remove_directory() -> Expected:
    os.mkdir(path("gone-too"))
    os.rmdir(path("gone-too"))
    return [("unlink", {"path": path("gone-too"), "directory": True})]


@act
def remove_directory_that_is_full() -> Expected:
    os.mkdir(path("full"))
    os.mkdir(path("full/of"))
    with suppress(OSError):
        os.rmdir(path("full"))
    return []


@act
def rename() -> Expected:
    Path(path("old")).touch()
    os.rename(path("old"), path("name"))
    return [("rename", {"path": path("old"), "to": path("name")})]


@act
def change_mode() -> Expected:
    Path(path("mode")).touch()
    os.chmod(path("mode"), 0o4755)
    fd = os.open(path("mode"), os.O_RDONLY)
    os.fchmod(fd, 0o600)
    return [
        ("chmod", {"path": path("mode"), "mode": 0o4755}),
        ("chmod", {"path": path("mode"), "mode": 0o600}),
    ]


@act
def link_hard() -> Expected:
    Path(path("first")).touch()
    os.link(path("first"), path("second"))
    return [("link", {"path": path("first"), "to": path("second"), "symbolic": False})]


@act
def link_symbolic() -> Expected:
    os.symlink("/etc/shadow", path("symbolic"))
    return [("link", {"path": "/etc/shadow", "to": path("symbolic"), "symbolic": True})]


# --- network ---


LOOPBACKS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def meet(family: socket.AddressFamily) -> Expected:
    address = LOOPBACKS[family]
    listener = socket.socket(family)
    listener.bind((address, 0))
    listener.listen(7)
    port = listener.getsockname()[1]
    client = socket.create_connection((address, port))
    listener.accept()[0].close()
    end = {"family": int(family), "address": address}
    return [
        ("bind", end | {"port": port}),
        ("listen", end | {"port": port, "backlog": 7}),
        ("connect", end | {"port": port, "errno": 0, "type": int(socket.SOCK_STREAM)}),
        ("accept", end | {"port": client.getsockname()[1]}),
    ]


@act
def meet_ipv4() -> Expected:
    return meet(socket.AF_INET)


@act
def meet_ipv6() -> Expected:
    return meet(socket.AF_INET6)


@act
def make_socket() -> Expected:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    return [("socket", {"family": int(socket.AF_INET), "type": int(socket.SOCK_DGRAM)})]


@act
def connect_refused() -> Expected:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    taken.close()
    with suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    return [("connect", {"address": "127.0.0.1", "port": port, "errno": errno.ECONNREFUSED})]


def meet_unix(name: str, shown: str) -> Expected:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen(3)
    socket.socket(socket.AF_UNIX).connect(name)
    listener.accept()
    end = {"family": int(socket.AF_UNIX), "path": shown, "address": "", "port": 0}
    return [("bind", end), ("listen", end | {"backlog": 3}), ("connect", end | {"errno": 0}), ("accept", end)]


@act
def meet_unix_path() -> Expected:
    return meet_unix(path("socket"), path("socket"))


@act
def meet_unix_long_path() -> Expected:
    name = path("s" * (UNIX_PATH_MAX - 1 - len(path("x")) + 1))
    return meet_unix(name, name)


@act
def bind_longest_path() -> Expected:
    """No 0 at its end any more."""
    name = path("s" * (UNIX_PATH_MAX - len(path("x")) + 1)).encode()
    address = struct.pack("=H", socket.AF_UNIX) + name
    made = socket.socket(socket.AF_UNIX)
    if libc.bind(made.fileno(), address, len(address)):
        raise OSError(ctypes.get_errno(), "bind")
    return [("bind", {"path": name.decode()})]


@act
def meet_unix_abstract() -> Expected:
    return meet_unix("\0clawos-acts", "@clawos-acts")


def ask(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", 1, 256, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, 28, 1)


@act
def ask_name() -> Expected:
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.sendto(ask("www.example.org"), ("127.0.0.1", 53))
    asker.sendto(ask("not.asked"), ("127.0.0.1", 54))
    return [("dns", {"name": "www.example.org", "type": 28, "address": "127.0.0.1", "port": 53})]


@act
def ask_name_connected() -> Expected:
    asker, server = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
    server.bind(("::1", 53))
    asker.connect(("::1", 53))
    asker.send(ask("connected.example.org"))
    asker.sendmsg([ask("first.example.org"), b"rest"])
    return [
        ("dns", {"name": "connected.example.org", "type": 28, "address": "::1"}),
        ("dns", {"name": "first.example.org", "type": 28, "address": "::1"}),
    ]


# --- the system ---


@act
def load_module() -> Expected:
    subprocess.run(["modprobe", "-r", "dummy"], check=True)
    subprocess.run(["modprobe", "dummy"], check=True)
    return [("module", {"name": "dummy"})]


def mount_alone() -> None:
    libc.unshare(CLONE_NEWNS)
    libc.mount(None, b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE


@act
def mount_by_mount() -> Expected:
    mount_alone()
    libc.mount(b"what", os.fsencode(WORK), b"tmpfs", 6, None)
    return [("mount", {"path": str(WORK), "source": "what", "type": "tmpfs", "flags": 6})]


@act
def mount_by_move_mount() -> Expected:
    mount_alone()
    made = call("fsopen", b"tmpfs", 0)
    call("fsconfig", made, 6, None, None, 0)  # FSCONFIG_CMD_CREATE
    tree = call("fsmount", made, 0, 0)
    call("move_mount", tree, b"", -100, os.fsencode(WORK), 4)  # MOVE_MOUNT_F_EMPTY_PATH
    return [("mount", {"path": str(WORK), "type": "tmpfs"})]


@act
def mount_that_fails() -> Expected:
    libc.mount(b"what", os.fsencode(WORK), b"no-such-type", 0, None)
    return []


@act
def attach() -> Expected:
    pid = os.fork()
    if not pid:
        signal.pause()
    call("ptrace", 16, pid, 0, 0)
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    return [("ptrace", {"target": pid, "request": 16})]


@act
def be_traced() -> Expected:
    child_that(lambda: call("ptrace", 0, 0, 0, 0))
    return [("ptrace", {"target": os.getpid(), "request": 0})]


@act
def look_into() -> Expected:
    pid = os.fork()
    if not pid:
        signal.pause()
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    return [("ptrace", {"target": pid, "request": -1})]


def become_nobody() -> None:
    os.setgid(NOBODY)
    os.setuid(NOBODY)


@act
def change_ids() -> Expected:
    pid = child_that(become_nobody)
    return [
        ("setid", {"tgid": pid, "old_gid": 0, "new_gid": NOBODY, "old_uid": 0, "new_uid": 0}),
        ("setid", {"tgid": pid, "old_uid": 0, "new_uid": NOBODY, "uid": 0}),
    ]


@act
def change_capabilities() -> Expected:
    keep = 1 << 21  # CAP_SYS_ADMIN

    def drop() -> None:
        header = ctypes.create_string_buffer(struct.pack("=II", 0x20080522, 0))
        call("capset", header, ctypes.create_string_buffer(struct.pack("=IIIIII", keep, keep, 0, 0, 0, 0)))

    return [("capset", {"tgid": child_that(drop), "effective": keep, "permitted": keep})]


@act
def make_namespaces() -> Expected:
    pid = child_that(lambda: libc.unshare(CLONE_NEWUTS))
    return [("namespace", {"tgid": pid, "flags": CLONE_NEWUTS, "how": "unshare"})]


@act
def enter_namespace() -> Expected:
    def enter() -> None:
        call("setns", os.open("/proc/self/ns/uts", os.O_RDONLY), CLONE_NEWUTS)

    return [("namespace", {"tgid": child_that(enter), "flags": CLONE_NEWUTS, "how": "setns"})]


@act
def clone_with_namespace() -> Expected:
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    pid = libc.syscall(number, CLONE_NEWUTS | signal.SIGCHLD, 0, 0, 0, 0)
    if not pid:
        os._exit(0)
    ended(pid)
    return [
        ("namespace", {"flags": CLONE_NEWUTS, "how": "clone", "tgid": os.getpid()}),
        ("fork", {"child_pid": pid}),
    ]


@act
def make_map() -> Expected:
    # BPF_MAP_CREATE: an array of one word
    attributes = struct.pack("=IIIIIII16s", 2, 4, 4, 1, 0, 0, 0, b"acts").ljust(128, b"\0")
    os.close(call("bpf", 0, ctypes.create_string_buffer(attributes, 128), 128))
    return [("bpf", {"command": 0, "name": "acts"})]


@act
def make_writable_and_executable() -> Expected:
    size = 4 * mmap.PAGESIZE
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    first = libc.mmap(None, size, 3, private, -1, 0)
    libc.mprotect(ctypes.c_void_p(first), ctypes.c_size_t(size), 7)
    second = libc.mmap(None, 2 * size, 7, private, -1, 0)
    libc.mmap(None, size, 5, private, -1, 0)
    return [
        ("mprotect", {"address": first, "size": size}),
        ("mprotect", {"address": second, "size": 2 * size}),
    ]


# --- how they are done ---


def told(event: Event) -> dict[str, Any]:
    common = {
        name: getattr(event, name) for name in Event.__struct_fields__ if name not in ("own", "process")
    }
    return common | event.own


def who() -> dict[str, Any]:
    """What every event of ours must say of us."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return {
        "tgid": os.getpid(),
        "ppid": os.getppid(),
        "start_ticks": ticks,
        "uid": os.getuid(),
        "gid": os.getgid(),
    }


def in_cgroup(cgroup: Path, does: Act) -> dict[str, Any]:
    """In a child of ours there. What it expects, or what went wrong."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            (cgroup / "cgroup.procs").write_text("0")
            answer: dict[str, Any] = {"who": who() | {"cgroup": cgroup.stat().st_ino}}
            answer["expected"] = does()
        except BaseException as error:
            answer = {"failed": repr(error)}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told_us: dict[str, Any] = json.loads(stream.read())
    ended(pid)
    return told_us


def set_followed(*cgroups: Followed) -> None:
    maps = PINS.parent / "maps"
    follow(cgroups, Map.pinned(maps / "named_cgroups"), Map.pinned(maps / "follows"))


def main(names: list[str]) -> None:
    source = PinnedRing.open(PINS)
    lost_before = dict(source.lost())
    set_followed(Followed(f"/{FOLLOWED}", tuple(kind.word for kind in Kind)))
    outside, followed = TREE / "acts-outside", TREE / FOLLOWED
    for cgroup in (outside, followed):
        cgroup.mkdir()
    for name in names or ACTS:
        for cgroup in (followed, outside):
            subprocess.run(["rm", "-rf", WORK], check=True)
            WORK.mkdir()
            while source.read(100_000):
                pass
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            answer = in_cgroup(cgroup, ACTS[name])
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            events = [told(event) for event in source.read(100_000) if event.cgroup == cgroup.stat().st_ino]
            line = {
                "act": name,
                "inside": cgroup == followed,
                "before": before,
                "after": after,
                "events": events,
            }
            print(json.dumps(answer | line), flush=True)
    lost = {kind: count for kind, count in source.lost().items() if count > lost_before.get(kind, 0)}
    print(json.dumps({"lost": lost}))
    for cgroup in (outside, followed):
        cgroup.rmdir()
    set_followed()


if __name__ == "__main__":
    main(sys.argv[1:])
