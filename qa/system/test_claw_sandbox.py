"""`claw sandbox` in the image: plans of every shipped tool, and what tools really call."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa.vm.machine import Output

Run = Callable[..., Output]

# What a pattern in a tool's manifest asks for; other arguments are made from their types.
VALUES = {"zone": "Europe/Berlin", "unit": "dbus", "name": "clawos"}


def tools(root: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(root("claw tools --json").text)
    return found


def arguments(tool: dict[str, Any]) -> list[str]:
    """Something valid for each argument that a tool needs."""
    words = []
    for name in tool["parameters"].get("required", []):
        schema = tool["parameters"]["properties"][name]
        value = schema["enum"][0] if "enum" in schema else schema.get("minimum", VALUES.get(name, "x"))
        words.append(f"{name}={value}")
    return words


def test_every_shipped_tool_has_a_plan(root: Run) -> None:
    found = tools(root)
    assert {tool["name"] for tool in found} == {file.stem for file in Path("policies/tools").glob("*.toml")}
    lines = [shlex.join(["claw", "sandbox", "plan", tool["name"], *arguments(tool)]) for tool in found]
    done = root(
        "\n".join(f"{line} >/tmp/plan && head -n 1 /tmp/plan || echo FAILED {line}" for line in lines), 600
    )
    shown = done.text.splitlines()
    assert [line for line in shown if line.startswith("FAILED")] == []
    assert [line.split(":")[0] for line in shown] == [tool["name"] for tool in found]


def test_a_plan_is_a_table_and_nothing_runs(root: Run) -> None:
    shown = root("claw sandbox plan file.write path=/home/root/planned text=x").text
    assert "seccomp profile shell" in shown
    assert "/home/root" in shown
    assert root("claw sandbox learn file.list path=/home/root").status == 0
    assert root("test -e /var/lib/clawos/isolator/home/0/planned").status != 0


def learn(root: Run, *words: str) -> dict[str, Any]:
    done = root(shlex.join(["claw", "sandbox", "learn", *words, "--json"]), 300)
    assert done.status == 0, done
    learned: dict[str, Any] = json.loads(done.text)
    return learned


def test_what_a_tool_calls_is_learned(root: Run) -> None:
    learned = learn(root, "file.read", "path=/etc/os-release")
    calls = {call["syscall"]: call["calls"] for call in learned["allowed"]}
    assert calls["openat"] > 3
    assert calls["execve"] >= 1
    assert not {"setsid", "capset", "pivot_root"} & {call["syscall"] for call in learned["refused"]}, (
        "the launcher's"
    )
    assert "fork" in learned["unused"]
    assert learned["lost"] == 0
    assert learned["result"]["exit_code"] == 0


def test_what_is_refused_is_shown_and_stays_refused(root: Run) -> None:
    script = "unshare -U true; mount -t tmpfs none /tmp; echo $?; python3 -c 'import socket; socket.socket()'"
    learned = learn(root, "shell.run", f"command={script}")
    refused = {call["syscall"]: call["answer"] for call in learned["refused"]}
    assert refused["unshare"] == refused["socket"] == "EPERM"
    assert "PermissionError" in learned["stderr"]
    assert root("unshare -U true").status == 0, "positive control"
    shown = root(shlex.join(["claw", "sandbox", "learn", "shell.run", f"command={script}"])).text
    assert "socket(arg0=0x2)" in shown


def test_neighbours_are_not_mixed_up(root: Run) -> None:
    root("(runuser -u claw -- env HOME=/home/claw clawsh -c '!mkfifo p; rm p; sleep 30' >/dev/null 2>&1 &)")
    learned = learn(root, "shell.run", "command=for i in 1 2 3 4 5 6 7 8; do sleep 1; done")
    called = {call["syscall"] for call in learned["allowed"]}
    assert "clock_nanosleep" in called
    assert "mknodat" not in called


WATCHING = "find /proc/[0-9]*/fd -lname '*perf_event*' 2>/dev/null | cut -d/ -f3 | sort -u"


@pytest.mark.parametrize("end", ["wait $!", "kill -KILL $!"])
def test_nothing_watches_afterwards(root: Run, end: str) -> None:
    """Who asked has got the report, or is gone."""
    done = root(
        "claw sandbox learn shell.run 'command=sleep 20' >/tmp/learned 2>&1 & "
        f'for i in $(seq 300); do [ -n "$({WATCHING})" ] && break; sleep 0.2; done; {WATCHING}; {end}; '
        f'echo after; for i in $(seq 50); do [ -n "$({WATCHING})" ] || break; sleep 0.2; done; {WATCHING}; '
        "pgrep -f '[c]lawos.isolator.learn'; grep -q clock_nanosleep /tmp/learned && echo told",
        300,
    )
    before, after = done.text.split("after\n")
    assert len(before.splitlines()) == 1, "positive control: one process watches"
    assert after == ("told\n" if end.startswith("wait") else "")


@pytest.mark.parametrize("action", ["plan", "learn"])
def test_only_root_may_ask(root: Run, action: str) -> None:
    done = root(f"runuser -u claw -- claw sandbox {action} file.read path=/etc/hosts")
    assert done.status == 1
    assert b"as root" in done.stderr


def test_learning_does_no_harm_unasked(root: Run) -> None:
    done = root("claw sandbox learn power.off")
    assert done.status == 1
    assert b"--yes" in done.stderr
