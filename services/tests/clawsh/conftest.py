"""A fake agent on the private bus, and clawsh as a process: through pipes, and at a terminal of its own."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clawsh.terminal import Terminal

SOURCES = Path(__file__).parents[2] / "src"
CLAWSH = [sys.executable, "-m", "clawos.clawsh"]


class Log:
    """What the fake agent was asked, since the test began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = path.stat().st_size

    def calls(self, member: str) -> list[dict[str, Any]]:
        with self.path.open() as file:
            file.seek(self._start)
            entries = [json.loads(line) for line in file]
        return [entry for entry in entries if entry["member"] == member]

    def wait_for(self, member: str, timeout_s: float = 10) -> list[dict[str, Any]]:
        """The calls, once there is one: a terminal shows what was typed before anybody is asked."""
        deadline = time.monotonic() + timeout_s
        while not (calls := self.calls(member)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return calls


@pytest.fixture
def bus_without_agent(tmp_path: Path) -> Iterator[str]:
    """A bus on which nobody is: neither held nor activatable names."""
    config = tmp_path / "empty-bus.conf"
    config.write_text(
        "<busconfig><type>system</type>"
        f"<listen>unix:path={tmp_path}/empty-bus</listen><auth>EXTERNAL</auth><policy context='default'>"
        "<allow send_destination='*'/><allow receive_sender='*'/></policy></busconfig>"
    )
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"], stdout=subprocess.PIPE
    )
    assert daemon.stdout is not None
    yield daemon.stdout.readline().decode().strip()
    daemon.terminate()
    daemon.wait(10)
    daemon.stdout.close()


# Not for the whole run: the rooms tested after this one need the name on the bus that they share.
@pytest.fixture(scope="module")
def _fake_agent(bus_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("agent")
    log = directory / "log"
    log.touch()
    owner = pwd.getpwnam("clawos-agent")
    os.chown(log, owner.pw_uid, owner.pw_gid)
    os.chown(directory, owner.pw_uid, owner.pw_gid)
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("fakes.py"), bus_address, log, str(owner.pw_uid)],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield log
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def log(_fake_agent: Path) -> Log:
    """The fake agent runs; this is its log."""
    return Log(_fake_agent)


@pytest.fixture
def environment(bus_address: str, tmp_path: Path) -> dict[str, str]:
    """What clawsh is started with: a home of its own and nothing of the machine's."""
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(SOURCES),
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "DBUS_SYSTEM_BUS_ADDRESS": bus_address,
    }


Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def clawsh(environment: dict[str, str]) -> Run:
    """Run clawsh through pipes: `clawsh("-c", "text", stdin=b"…")`."""

    def run(*arguments: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*CLAWSH, *arguments],
            input=stdin,
            capture_output=True,
            env={**environment, **more},
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Start clawsh at a terminal of its own: `terminal("-c", "text", TERM="dumb")`."""
    started: list[Terminal] = []

    def start(*arguments: str, argv0: str | None = None, **more: str) -> Terminal:
        made = Terminal([*CLAWSH, *arguments], {**environment, **more}, argv0)
        started.append(made)
        return made

    yield start
    for made in started:
        made.close()
