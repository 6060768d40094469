"""Runs as root on the host beside the sandbox: what an escape would find. Says "ready" to systemd's journal.

BESIDE JSON: the facts that the probe gets too.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

KEY_SPEC_USER_KEYRING = -4
ADD_KEY = 248
IPC_CREAT = 0o1000


def main(facts: dict[str, Any]) -> None:
    for address in {host for host, _ in facts["internet"].values()} - {"127.0.0.1", "::1"}:
        subprocess.run(
            ["ip", "address", "replace", f"{address}/{128 if ':' in address else 32}", "dev", "lo"]
        )
    subprocess.run(["ip", "link", "add", "escape0", "type", "veth", "peer", "escape1"], check=True)
    listeners = [_listening(socket.AF_UNIX, f"\0{facts['abstract']}")]
    for host, port in facts["internet"].values():
        listeners.append(_listening(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)))
    for listener in listeners:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    _shared_memory(facts)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(tuple(facts["dns"]))
    print("ready", flush=True)
    while True:
        _, sender = names.recvfrom(512)
        names.sendto(b"!", sender)


def _listening(family: int, where: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1) if family == socket.AF_INET6 else None
    made.bind(where)
    made.listen()
    return made


def _accept(listener: socket.socket) -> None:
    while True:
        listener.accept()[0].close()


def _shared_memory(facts: dict[str, Any]) -> None:
    libc = ctypes.CDLL(None)
    libc.shmget(0x636C6177, ctypes.c_size_t(4096), IPC_CREAT | 0o666)
    libc.semget(0x636C6177, 1, IPC_CREAT | 0o666)
    libc.msgget(0x636C6177, IPC_CREAT | 0o666)
    for directory in ("/dev/shm", "/tmp", "/dev/mqueue"):
        Path(directory, facts["file"]).touch()
    key = facts["key"].encode()
    libc.syscall(ADD_KEY, b"user", key, b"x", ctypes.c_size_t(1), KEY_SPEC_USER_KEYRING)
    os.chmod(f"/tmp/{facts['file']}", 0o666)


main(json.loads(sys.argv[1]))
