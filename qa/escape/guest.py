"""The suite's ways into the guest: an act inside the sandbox, the same outside, what is left there."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qa.conftest import Call, Ran
from qa.vm.machine import Output

Run = Callable[..., Output]
Answers = dict[str, str]

PROBE = "python3 -I /usr/local/lib/escape"
# Mounts, host name and SysV memory of its own, so that what the control does to them is gone with it.
OUTSIDE = "unshare --mount --uts --ipc --propagation private"

HOST = Path(__file__).with_name("host")


@dataclass
class Pulse:
    """How the host felt meanwhile; whole when the block is over."""

    beats: int = 0
    longest_s: float = field(default=float("inf"))


@dataclass(frozen=True)
class Guest:
    root: Run
    call: Call
    copies: bool
    """The backend starts files of Python as copies of a zygote."""

    def inside(self, command: str) -> Ran:
        """A shell command line as the agent runs it for the user after his yes."""
        return self.call("shell.run", command=command)

    def probe_inside(self, group: str, facts: Mapping[str, Any]) -> Answers:
        ran = self.inside(f"{PROBE} {group} {shlex.quote(json.dumps(facts))}")
        assert ran.exit_code == 0, ran
        return _answers(ran.stdout)

    def probe_outside(self, group: str, facts: Mapping[str, Any], before: str = OUTSIDE) -> Answers:
        done = self.root(f"{before} {PROBE} {group} {shlex.quote(json.dumps(facts))}")
        assert done.status == 0, done.stderr
        return _answers(done.text)

    def probe_in_copy(self, group: str, facts: Mapping[str, Any]) -> Answers:
        """As `probe_inside`, but from a tool that is a file of Python."""
        code = (
            f"import runpy, sys; sys.argv = ['', {group!r}, {json.dumps(facts)!r}]\n"
            f"_ = runpy.run_path({PROBE.split()[-1]!r}, run_name='__main__')"
        )
        ran = self.call("python.run", code=code)
        assert ran.exit_code == 0, ran
        return _answers(ran.stdout)

    def make_ready(self) -> None:
        """Until files of Python start as a zygote's copies: made now, it is no trace of what comes later."""
        if not self.copies:
            return
        for _ in range(30):
            ran = self.call("python.run", code="import gc; gc.get_freeze_count() > 0")
            if ran.stdout == "True\n":
                return
            time.sleep(1)
        raise AssertionError(f"no zygote: {ran}")

    def on_host(self, program: str) -> str:
        """What a program of `host` prints, run as root."""
        done = self.root(f"python3 -I - <<'END OF PROGRAM'\n{(HOST / program).read_text()}\nEND OF PROGRAM\n")
        assert done.status == 0, done.stderr
        return done.text

    def traces(self) -> dict[str, list[str]]:
        """What is there that a sandbox might have left."""
        found: dict[str, list[str]] = json.loads(self.on_host("traces.py"))
        return found

    @contextmanager
    def heartbeat(self) -> Iterator[Pulse]:
        """Feel the host's pulse for the length of the block."""
        program = (HOST / "heartbeat.py").read_text()
        done = self.root(
            f"cat >/run/heartbeat.py <<'END OF PROGRAM'\n{program}\nEND OF PROGRAM\n"
            "systemd-run -q --unit=qa-heartbeat -p Type=exec python3 -I /run/heartbeat.py &&"
            "until [ -e /run/heartbeat.up ]; do sleep 0.1; done"
        )
        assert done.status == 0, done.stderr
        pulse = Pulse()
        try:
            yield pulse
        finally:
            found = self.root("systemctl stop qa-heartbeat; cat /run/heartbeat.json; rm /run/heartbeat.*")
            why = self.root(
                "systemctl reset-failed -q qa-heartbeat; journalctl -q -u qa-heartbeat -n 20"
            ).text
        assert found.text, f"the heart broke: {why}"
        told = json.loads(found.text)
        pulse.beats, pulse.longest_s = told["beats"], told["longest_s"]


def _answers(text: str) -> Answers:
    answers: Answers = json.loads(text)
    return answers
