"""One boot of the image, shared by all system tests; each test leaves it as it found it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from qa.vm.machine import Channel, Machine, Output, fresh_guest

IMAGE = Path(os.environ.get("IMAGE") or "build/image/clawos.raw")


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    with fresh_guest("test", IMAGE) as made:
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

    @property
    def outcome(self) -> tuple[int | None, str]:
        """What a call that worked leaves: (0, "")."""
        return self.exit_code, self.stderr + self.refused


Call = Callable[..., Ran]


def tool_calls(channel: Channel) -> Call:
    """Call a tool by its manifest for the user `claw`, as the agent does once he has approved."""
    program = Path(__file__).with_name("call_tool.py").read_text()

    def call(tool: str, arguments: Mapping[str, str] | None = None, /, **more: str) -> Ran:
        words = shlex.join([tool, json.dumps({**(arguments or {}), **more}), "claw"])
        done = channel.run(f"python3 -I - {words} <<'END OF PROGRAM'\n{program}\nEND OF PROGRAM\n")
        assert done.status == 0, done.stderr
        told = json.loads(done.text)
        return Ran(**{field: told[field] for field in Ran.__dataclass_fields__ if field in told})

    return call


@pytest.fixture(scope="session")
def call(channel: Channel) -> Call:
    return tool_calls(channel)


def json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]
