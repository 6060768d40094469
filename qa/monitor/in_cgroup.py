"""Run in the guest: do acts outside and inside a sandbox's cgroup, and say what came of each.

    in_cgroup.py ARGUMENTS   as JSON: {"acts": {name: code}, "confined": bool, "set": number, "profile": name}

Prints JSON: {name: [outside, inside, [record, …]]}; an outcome is "ok" or what the act raised. The records
are those of the verdicts that the act inside left in the ring. Nobody else is to read the ring meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import socket
import struct
import sys
import time
import traceback
from pathlib import Path

from clawos.monitor.ring import Ring

ISOLATOR = Path("/sys/fs/cgroup/system.slice/clawos-isolator.service")
PINS = Path("/sys/fs/bpf/clawos")
RING_BYTES = 8 << 20
KIND_DENIED = 25
BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_UPDATE, _DELETE, _GET = 2, 3, 7
_EVENT_BYTES, _DENIED_BYTES = 88, 120
LIBC = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes) -> int:
    done: int = LIBC.syscall(BPF, command, attributes.ljust(128, b"\0"), 128)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def opened(path: Path, flags: int = 0) -> int:
    """A pinned object; flags 8: to read."""
    name = ctypes.create_string_buffer(bytes(path))
    return bpf(_GET, struct.pack("=QII", ctypes.addressof(name), 0, flags))


def give_set(cgroup: Path, number: int) -> None:
    fd = opened(PINS / "monitor" / "guest_sets")
    key = ctypes.create_string_buffer(struct.pack("=Q", cgroup.stat().st_ino), 8)
    value = ctypes.create_string_buffer(struct.pack("=I", number), 4)
    bpf(_UPDATE, struct.pack("=I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0))
    os.close(fd)


def confine() -> None:
    """A filter that allows all: what tells the kernel side that the set-up is over."""
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000), 8)
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", 1, ctypes.addressof(code)), 16)
    pr_set_seccomp, mode_filter = 22, 2
    if LIBC.prctl(pr_set_seccomp, mode_filter, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def attempt(code: str, cgroup: Path | None, arguments: dict[str, object]) -> str:
    reader, writer = os.pipe()
    compiled = compile(code, "act", "exec")
    child = os.fork()
    if child == 0:
        told = "ok"
        try:
            if arguments.get("profile"):
                Path("/proc/self/attr/current").write_text(f"changeprofile {arguments['profile']}")
            if cgroup:
                (cgroup / "cgroup.procs").write_text("0")
                if arguments.get("confined"):
                    confine()
            exec(compiled, {"os": os, "socket": socket, "ctypes": ctypes, "libc": LIBC, "check": check})
        except OSError as error:
            told = errno.errorcode.get(error.errno or 0, str(error))
        except BaseException:
            told = traceback.format_exc()
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told


def check(result: int) -> None:
    """For acts by ctypes."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def verdicts(ring: Ring) -> list[dict[str, object]]:
    """What waits in the ring, of verdicts; all else is passed over."""
    found = []
    for _ in range(1000):
        records = ring.read(4096)
        if not records and not ring.waiting_bytes:
            break
        if not records:  # one is being written, on a processor that has stopped for a moment
            time.sleep(0.01)
        for record in records:
            if record[2] != KIND_DENIED:
                continue
            cgroup, call = struct.unpack_from("=QQ", record, 16)
            text = struct.unpack_from("=H", record, 68)[0]
            hook, error = struct.unpack_from("=Ii", record, _EVENT_BYTES)
            family, port = struct.unpack_from("=H2s", record, _EVENT_BYTES + 8)
            words = record[_DENIED_BYTES : _DENIED_BYTES + text].decode(errors="replace")
            found.append(
                {
                    "cgroup": cgroup,
                    "call": f"{call:016x}",
                    "hook": hook,
                    "errno": error,
                    "family": family,
                    "port": int.from_bytes(port),
                    "text": words,
                }
            )
    return found


def main() -> None:
    arguments = json.loads(sys.argv[1])
    call = os.urandom(8).hex()
    cgroup = ISOLATOR / f"call-{call}"
    cgroup.mkdir()
    ring_fd = opened(PINS / "monitor" / "events")
    ring = Ring(ring_fd, RING_BYTES)
    try:
        if arguments.get("set"):
            give_set(cgroup, arguments["set"])
        told = {}
        for name, code in arguments["acts"].items():
            outside = attempt(code, None, arguments)
            verdicts(ring)
            inside = attempt(code, cgroup, arguments)
            told[name] = [outside, inside, [v for v in verdicts(ring) if v["call"] == call]]
        print(json.dumps(told))
    finally:
        cgroup.rmdir()


if __name__ == "__main__":
    main()
