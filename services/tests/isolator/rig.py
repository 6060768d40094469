"""claw-launch without the service around it: what it makes of one plan.

rig.py LAUNCHER PLAN        start a plan (in hexadecimal), say so and wait
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from clawos.isolator.handover import sealed

# As root: whoever a plan names.
EVERYBODY = "0 0 4294967295\n"
INIT = 0x70000000
_ANSWER_S = 60
"""Nothing that is asked takes longer, on a machine without time."""


class Rig:
    """The launcher, running. `before` stands before its command line; without `leaf` there is no cgroup."""

    def __init__(
        self,
        program: Path,
        *,
        before: Sequence[str] = (),
        uid_map: str = EVERYBODY,
        gid_map: str = EVERYBODY,
        leaf: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._leaf = leaf
        self._is_below = bool(before)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = str(theirs.fileno())
        command = [*before, str(program), fd, uid_map, gid_map, str(INIT)]
        command += [] if leaf else ["--test-without-cgroup"]
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(), *pass_fds))
        theirs.close()

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.control.close()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()

    @property
    def spawner(self) -> int:
        """The launcher's child. Raises ValueError, OSError when there is none."""
        launcher = self.process.pid
        if self._is_below:
            (launcher,) = children(launcher)
        (spawner,) = children(launcher)
        return spawner

    def held(self, expected: Counter[str] | None = None) -> Counter[str]:
        """What the spawner has: descriptors, its own network among them, processes; nothing, if it has ended.

        It takes a moment until it has let go of what was a call's.
        """
        held: Counter[str] = Counter()
        deadline = time.monotonic() + (20 if expected else 0.5)
        while time.monotonic() < deadline and (not held or held != expected):
            time.sleep(0.002)
            try:
                held = Counter(_held(self.spawner))
            except (OSError, ValueError):  # it is closing some just now; or it has ended
                if self.process.poll() is not None:
                    return Counter()
        return held

    def ask(self, fds: Sequence[int]) -> socket.socket:
        """Send a request whose second descriptor is its status; returns the end to read."""
        ours, theirs = socket.socketpair()
        ours.settimeout(_ANSWER_S)
        with theirs:
            try:
                socket.send_fds(self.control, [b"\0"], [fds[0], theirs.fileno(), *fds[1:]])
            except OSError:
                ours.close()
                raise
        return ours

    def build(self, plan_fd: int) -> tuple[list[str], int | None]:
        """What is reported, and the root."""
        with self.ask([plan_fd]) as status:
            said, fds, _, _ = socket.recv_fds(status, 4096, 1)
            reports = (said + read_socket(status)).decode().split("\n")
        return [line for line in reports if line], fds[0] if fds else None

    def start(
        self, plan_fd: int, root: int, streams: Sequence[int], network: Sequence[int] = ()
    ) -> socket.socket:
        return self.ask([plan_fd, *streams, root, *([self._leaf] if self._leaf else []), *network])

    def lend(self) -> tuple[int, int]:
        """A network namespace, and a route socket in it."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(self.control, [b"\0"], [theirs.fileno()])
            _, (network, route), _, _ = socket.recv_fds(ours, 4096, 2)
        return network, route

    def run(self, data: bytes, stdout: int | None = None) -> list[str]:
        """The reports from building the plan's root and running it, to the end."""
        plan_fd, null = sealed(data), os.open(os.devnull, os.O_RDWR)
        try:
            reports, root = self.build(plan_fd)
            if root is None:
                return reports
            out = null if stdout is None else stdout
            with self.start(plan_fd, root, (null, out, out)) as status:
                os.close(root)
                return read_socket(status).decode().splitlines()
        finally:
            os.close(plan_fd)
            os.close(null)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _held(spawner: int) -> Iterator[str]:
    own = Path(f"/proc/{spawner}/ns/net").readlink()
    for link in Path(f"/proc/{spawner}/fd").iterdir():
        target = link.readlink()
        yield ("own " if target == own else "") + re.sub(r"\d+", "", str(target))
    yield from ("a process" for _ in children(spawner))


def read_socket(status: socket.socket) -> bytes:
    data = b""
    while piece := status.recv(4096):
        data += piece
    return data


if __name__ == "__main__":
    rig = Rig(Path(sys.argv[1]))
    plan_fd, null_fd = sealed(bytes.fromhex(sys.argv[2])), os.open(os.devnull, os.O_RDWR)
    _, root_fd = rig.build(plan_fd)
    assert root_fd is not None
    call = rig.start(plan_fd, root_fd, (null_fd, null_fd, null_fd))
    print(call.recv(100).decode(), flush=True)
    time.sleep(600)
