"""One boot of the image, shared by all tests in it (qa/system, qa/escape, qa/detect, qa/load).

Each leaves it as it found it.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qa.detect import share as cpython
from qa.detect.follow import CREDENTIALS
from qa.escape import share
from qa.load import share as load
from qa.vm.machine import Channel, Machine, Output, fresh_guest

IMAGE = Path(os.environ.get("IMAGE") or "build/image/clawos.raw")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("share")
    for part in (share, load, cpython):
        part.make(folder)
    with fresh_guest(os.environ.get("GUEST") or "test", IMAGE, share=folder, credentials=CREDENTIALS) as made:
        yield made


@pytest.fixture(scope="session")
def channel(machine: Machine) -> Channel:
    made = machine.wait_for_channel()
    made.run("systemctl is-system-running --wait", 300)
    return made


@pytest.fixture(scope="session")
def root(channel: Channel) -> Callable[..., Output]:
    """Run a shell command line as root in the guest."""
    return channel.run


@contextmanager
def without_reactions(root: Callable[..., Output]) -> Iterator[None]:
    """The monitor ends calls at the first bad act: where the fence that stops it is to be seen, it rests.

    What it put into the kernel stays in force.
    """
    units = "clawos-monitor.socket clawos-monitor.service"
    assert root(f"systemctl stop {units}").status == 0
    try:
        yield
    finally:
        assert root(f"systemctl start {units}").status == 0


@pytest.fixture(scope="module")
def unwatched(root: Callable[..., Output]) -> Iterator[None]:
    with without_reactions(root):
        yield


@pytest.fixture(scope="session")
def user(channel: Channel) -> Callable[..., Output]:
    """Run clawsh with the given arguments as the ordinary user `claw`, without a terminal."""

    def run(*arguments: str, stdin: str | None = None, timeout_s: float = 300) -> Output:
        command = "runuser -u claw -- env HOME=/home/claw TERM=dumb " + shlex.join(["clawsh", *arguments])
        if stdin is not None:
            command = f"printf %s {shlex.quote(stdin)} | {command}"
        return channel.run(command, timeout_s)

    return run


@dataclass(frozen=True)
class Ran:
    """What came of a tool's call. `refused`: the isolator did not run it."""

    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    refused: str = ""
    limit: str | None = None
    wall_s: float = 0.0

    @property
    def outcome(self) -> tuple[int | None, str]:
        """What a call that worked leaves: (0, "")."""
        return self.exit_code, self.stderr + self.refused


Call = Callable[..., Ran]


def tool_calls(channel: Channel, **changes: object) -> Call:
    """Call a tool by its manifest for the user `claw`, as the agent does once he has approved.

    `changes`: fields of the specification that another manifest would have.
    """
    program = Path(__file__).with_name("vm").joinpath("call_tool.py").read_text()

    def call(tool: str, arguments: Mapping[str, str] | None = None, /, **more: str) -> Ran:
        words = shlex.join([tool, json.dumps({**(arguments or {}), **more}), "claw", json.dumps(changes)])
        done = channel.run(f"python3 -I - {words} <<'END OF PROGRAM'\n{program}\nEND OF PROGRAM\n")
        assert done.status == 0, done.stderr
        told = json.loads(done.text)
        return Ran(**{field: told[field] for field in Ran.__dataclass_fields__ if field in told})

    return call


@pytest.fixture(scope="session")
def call(channel: Channel) -> Call:
    return tool_calls(channel)


BACKENDS = ("launcher", "bubblewrap")
_SETTINGS = "/etc/clawos/isolator.toml"
_DROP_IN = "/run/systemd/system/clawos-isolator.service.d"


@contextmanager
def sandboxes_by(backend: str, root: Callable[..., Output], *more: str) -> Iterator[None]:
    """The isolator restarted with this backend, as its settings say how to; afterwards as it was.

    `more`: lines of its settings.
    """
    before = root(f"cat {_SETTINGS}").stdout
    try:
        lines = [
            f'backend = "{backend}"',
            *more,
            *(x for x in before.decode().splitlines() if x[:7] != "backend"),
        ]
        _write(root, _SETTINGS, "\n".join(lines).encode() + b"\n")
        if backend == "bubblewrap":
            root(f"mkdir -p {_DROP_IN} && ln -sf /usr/lib/clawos/isolator-bubblewrap.conf {_DROP_IN}/")
        _restart_isolator(root)
        assert isolator_status(root)["backend"] == backend
        yield
    finally:
        _write(root, _SETTINGS, before)
        root(f"rm -rf {_DROP_IN}")
        _restart_isolator(root)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest, root: Callable[..., Output]) -> Iterator[str]:
    """A module that asks for it runs over both backends, one after the other on the one boot."""
    with sandboxes_by(request.param, root):
        yield request.param


def isolator_status(root: Callable[..., Output]) -> dict[str, Any]:
    name, path = "org.clawos.Isolator1", "/org/clawos/Isolator1"
    reply = root(f"busctl -j call {name} {path} {name} Status")
    status: dict[str, Any] = json.loads(json.loads(reply.text)["data"][0])
    return status


def _write(root: Callable[..., Output], path: str, content: bytes) -> None:
    assert root(f"printf %s {shlex.quote(content.decode())} > {path}").status == 0


def _restart_isolator(root: Callable[..., Output]) -> None:
    done = root(
        "systemctl daemon-reload; systemctl reset-failed clawos-isolator; systemctl restart clawos-isolator"
    )
    assert done.status == 0, root("journalctl -b -q -u clawos-isolator -n 20").text


def json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]
