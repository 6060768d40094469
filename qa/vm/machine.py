"""A running guest: start it, talk to it over the harness channel, stop it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qa.vm.qemu import Guest, kvm_works

BOOT_TIMEOUT_S = 600
# Sequences that move a terminal's cursor, set its colours or its title.
CONTROL = re.compile(r"\x1b(\[[0-9;?!]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78cM])")

_HARNESS_UNIT = """[Unit]
Description=Command channel of the QEMU harness
After=dbus.socket
[Service]
Type=exec
ImportCredential=clawos.harness
ExecStart=/usr/bin/python3 -I %d/clawos.harness
Restart=always
KillMode=process
"""
_HARNESS_WANTED = "[Unit]\nWants=clawos-harness.service\n"


class VmError(Exception):
    """The guest or the channel failed; the message says what to look at."""


def harness_credentials() -> dict[str, bytes]:
    """What opens the channel: the unit and its program travel in as credentials; the image holds neither."""
    return {
        "systemd.extra-unit.clawos-harness.service": _HARNESS_UNIT.encode(),
        "systemd.unit-dropin.multi-user.target": _HARNESS_WANTED.encode(),
        "clawos.harness": Path(__file__).with_name("guest_side.py").read_bytes(),
        # The account stays locked for passwords: root enters it by `su`, nobody from outside.
        "passwd.hashed-password.claw": b"!*",
    }


@dataclass(frozen=True)
class Output:
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


class Channel:
    """The host's end of the virtio port. One command at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._pending = b""
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def _line(self, deadline: float) -> dict[str, object]:
        while b"\n" not in self._pending:
            try:
                data = read_some(self._socket, deadline)
            except TimeoutError:
                raise VmError("the guest does not answer on the harness channel; see console.log") from None
            if not data:
                raise VmError("the guest went away; see console.log")
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        message: dict[str, object] = json.loads(line)
        return message

    def _request(self, deadline: float, on_data: Callable[[str, bytes], None], **request: object) -> int:
        self._number += 1
        self._socket.sendall(json.dumps(request | {"id": self._number}).encode() + b"\n")
        while True:
            message = self._line(deadline)
            for name in ("out", "err"):
                if name in message:
                    on_data(name, base64.b64decode(str(message[name])))
            if message.get("id") == self._number:
                return int(str(message["exit"]))

    def ping(self, timeout_s: float) -> bool:
        try:
            self._request(time.monotonic() + timeout_s, lambda *_: None, run=None)
        except (VmError, OSError):
            return False
        return True

    def run(self, command: str, timeout_s: float = 600, *, show: bool = False) -> Output:
        """Run a shell command line as root in the guest; `show` also copies its output here as it comes."""
        got: dict[str, list[bytes]] = {"out": [], "err": []}

        def on_data(name: str, data: bytes) -> None:
            got[name].append(data)
            if show:
                stream = sys.stdout.buffer if name == "out" else sys.stderr.buffer
                stream.write(data)
                stream.flush()

        deadline = time.monotonic() + timeout_s + 60
        status = self._request(deadline, on_data, run=command, timeout_s=timeout_s)
        return Output(status, b"".join(got["out"]), b"".join(got["err"]))


class Machine:
    """A guest that runs, by its folder. Survives this process when it is told to."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.kvm = kvm_works()
        self._started: list[subprocess.Popen[bytes]] = []
        self._channel: Channel | None = None

    def start(self) -> None:
        guest = self.guest
        guest.prepare()
        for name in ("harness.sock", "console.sock", "monitor.sock", "tpm.sock"):
            guest.socket(name).unlink(missing_ok=True)
        with guest.path("swtpm.log").open("wb") as log:
            self._started = [
                subprocess.Popen(guest.tpm_command(), stdout=log, stderr=log, start_new_session=True)
            ]
        _wait(guest.socket("tpm.sock").exists, 15, "swtpm did not start; see swtpm.log")
        command = guest.command(self.kvm)
        if guest.console == "stdio":
            self.foreground = subprocess.Popen(command)
        else:
            with guest.path("qemu.log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
                self._started.append(process)
            guest.path("pid").write_text(str(process.pid))
        _wait(guest.socket("harness.sock").exists, 30, "QEMU did not start; see qemu.log")

    @property
    def pid(self) -> int | None:
        """Process id of the running QEMU, or None. A stale pid file of another process does not count."""
        for process in self._started:
            process.poll()  # one that ended must not stay a zombie, which looks alive
        try:
            pid = int(self.guest.path("pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"qemu-system" in command and str(self.guest.directory).encode() in command else None

    def wait_for_channel(self, timeout_s: float = BOOT_TIMEOUT_S) -> Channel:
        """Wait until the guest's end answers. Raises VmError, also when QEMU ends before that."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.guest.console == "file" and self.pid is None:
                raise VmError("QEMU ended while the guest was booting; see qemu.log and console.log")
            channel = Channel(self.guest.socket("harness.sock"))
            if channel.ping(min(10, deadline - time.monotonic())):
                self._channel = channel
                return channel
            channel.close()
        raise VmError(f"the guest did not come up within {timeout_s:g} s; see console.log")

    def stop(self, timeout_s: float = 90) -> None:
        """Power off by the ACPI button, then by force. Ends the channel too."""
        if self._channel:
            self._channel.close()
        pid = self.pid
        if pid is None:
            return
        monitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            monitor.connect(str(self.guest.socket("monitor.sock")))
            monitor.sendall(b"system_powerdown\n")
            _wait(lambda: self.pid is None, timeout_s, "")
        except (OSError, VmError):
            os.kill(pid, signal.SIGKILL)
        finally:
            monitor.close()
        self.guest.path("pid").unlink(missing_ok=True)
        for process in self._started:
            process.wait(30)

    def console_text(self) -> str:
        """What the guest wrote to its console so far, without terminal control sequences."""
        raw = self.guest.path("console.log").read_bytes().decode(errors="replace")
        return CONTROL.sub("", raw)


@contextmanager
def fresh_guest(
    name: str,
    image: Path,
    *,
    harness: bool = True,
    lockdown: str = "integrity",
    share: Path | None = None,
    credentials: Mapping[str, bytes] | None = None,
) -> Iterator[Machine]:
    """A guest on a new disk in build/vm/NAME, powered off at the end; one left over is ended first."""
    directory = Path("build/vm", name).absolute()
    Machine(Guest(directory, image)).stop(timeout_s=1)
    shutil.rmtree(directory, ignore_errors=True)
    handed_in = (harness_credentials() if harness else {}) | dict(credentials or {})
    machine = Machine(Guest(directory, image, handed_in, lockdown, share=share))
    machine.start()
    try:
        yield machine
    finally:
        machine.stop()


def read_some(connection: socket.socket, deadline: float) -> bytes:
    """What arrives before the deadline; empty at the end of the stream. Raises TimeoutError."""
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    return connection.recv(65536)


def _wait(condition: Callable[[], bool], timeout_s: float, message: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise VmError(message)
        time.sleep(0.05)
