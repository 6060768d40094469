"""What lies beside the sandbox: processes, sockets, shared memory, keys and the network of the host."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from qa.escape.probe.act import Act

PIDS = 32768
CONNECT_S = 5


def acts(facts: dict[str, Any]) -> dict[str, Act]:
    return {
        "signal pid 1": partial(os.kill, 1, 0),
        "signal a host process": partial(os.kill, facts["pid"], 0),
        "thread signal to a host process": partial(_thread_signal, facts["pid"]),
        "reach other processes": _others,
        "abstract socket": partial(_connect, socket.AF_UNIX, f"\0{facts['abstract']}"),
        **{f"socket {path}": partial(_unix, path) for path in facts["paths"]},
        **{f"connect {name}": partial(_internet, *to) for name, to in facts["internet"].items()},
        "datagram to port 53": partial(_datagram, *facts["dns"]),
        "raw packets": partial(_made, socket.AF_INET, socket.SOCK_RAW),
        "interfaces": _interfaces,
        "listen for the network": _listen,
        "shared memory segments": partial(_table, "/proc/sysvipc/shm"),
        "semaphores": partial(_table, "/proc/sysvipc/sem"),
        "message queues": partial(_table, "/proc/sysvipc/msg"),
        "file in /dev/shm": partial(_there, f"/dev/shm/{facts['file']}"),
        "file in /tmp": partial(_there, f"/tmp/{facts['file']}"),
        "posix queue": partial(_there, f"/dev/mqueue/{facts['file']}"),
        "keys": partial(_keys, facts["key"]),
        "cgroup path": _cgroup,
        "int 0x80": partial(_native, "int80"),
        "x32": partial(_native, "x32"),
    }


def _thread_signal(pid: int) -> None:
    from qa.escape.probe.act import call

    call("tgkill", pid, pid, 0)


def _others() -> str:
    own = {os.getpid(), os.getppid(), 1}
    found = set()
    for pid in range(1, PIDS):
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            found.add(pid)
    return "none" if len(found - own) <= 3 else f"{len(found)}"


def _connect(family: int, to: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.settimeout(CONNECT_S)
        made.connect(to)


def _unix(path: str) -> None:
    """Stream or datagram, whichever it is."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as made:
            try:
                made.connect(path)
            except OSError as error:
                if error.errno == 91:  # EPROTOTYPE
                    continue
                raise
            return


def _internet(host: str, port: int) -> None:
    _connect(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))


def _datagram(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(CONNECT_S)
        made.sendto(b"?", (host, port))
        made.recvfrom(16)


def _made(family: int, kind: int) -> None:
    socket.socket(family, kind, socket.IPPROTO_ICMP).close()


def _listen() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.bind(("0.0.0.0", 0))
        made.listen()


def _interfaces() -> str:
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return " ".join(sorted(line.split(":")[0].strip() for line in lines)) or "none"


def _there(path: str) -> None:
    os.stat(path)


def _table(path: str) -> str:
    return "some" if len(Path(path).read_text().splitlines()) > 1 else "none"


def _keys(name: str) -> str:
    return "found" if name in Path("/proc/keys").read_text() else "none"


def _cgroup() -> str:
    return Path("/proc/self/cgroup").read_text().strip()


def _native(name: str) -> str:
    """A program of few instructions, which prints what the kernel answered."""
    done = subprocess.run(["/usr/local/bin/abi", name], capture_output=True, text=True)
    if done.returncode < 0:
        return f"killed {signal.Signals(-done.returncode).name}"
    return done.stdout.strip()
