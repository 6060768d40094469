"""The product in one sentence: plain language in, a sandboxed call, an answer out."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from qa.conftest import json_lines
from qa.vm.machine import Output

Run = Callable[..., Output]

QUESTION = "how much memory is free?"


def test_question_is_answered(user: Run) -> None:
    done = user("-c", QUESTION)
    assert done.status == 0, done.stderr
    assert re.search(r"\d.*(GiB|MiB).*free", done.text), done.text


def test_answer_is_the_truth(user: Run, root: Run) -> None:
    total_kib = int(root("awk '/^MemTotal/ {print $2}' /proc/meminfo").text)
    shown = user("-c", QUESTION).text
    numbers = [
        float(n) * (1 if unit == "GiB" else 1 / 1024) for n, unit in re.findall(r"([\d.]+) (GiB|MiB)", shown)
    ]
    assert any(abs(n - total_kib / 2**20) < 0.06 for n in numbers), shown


def test_login_shell_by_su(root: Run) -> None:
    done = root(f"su -l claw -c '{QUESTION}'", 300)
    assert done.status == 0
    assert "free" in done.text


def test_events_as_json(user: Run) -> None:
    done = user("--json", "-c", QUESTION)
    events = json_lines(done.text)
    kinds = [e["type"] for e in events]
    assert "tool_call" in kinds
    assert "tool_result" in kinds
    call = next(e for e in events if e["type"] == "tool_call")
    assert call["tool"] == "memory.usage"


def test_plan_runs_nothing(user: Run, root: Run) -> None:
    before = root("journalctl -b -q -u clawos-isolator -o cat | wc -l").text
    done = user("--plan", "-c", QUESTION)
    assert done.status == 0
    assert "memory.usage" in done.text
    assert root("journalctl -b -q -u clawos-isolator -o cat | wc -l").text == before


@pytest.mark.parametrize(
    ("request_text", "tool"),
    [
        ("what time is it?", "time.now"),
        ("how long has this machine been up?", "system.uptime"),
        ("how busy is the cpu?", "cpu.load"),
        ("how much disk space is left?", "disk.usage"),
        ("list the files in /etc", "file.list"),
        ("show me the running processes", "process.list"),
        ("which services have failed?", "unit.list"),
        ("status of dbus", "unit.status"),
        ("show the last 5 lines of the log", "journal.show"),
        ("what is my ip address?", "network.show"),
        ("which kernel version is this?", "system.version"),
        ("what is 12 * 34?", "math.eval"),
        ("which disks are there?", "disk.list"),
        ("how big is /etc?", "directory.size"),
        ("who owns /etc/passwd?", "file.info"),
        ("sha256 of /etc/hostname", "file.hash"),
        ("list the user accounts", "user.list"),
        ("who is logged in?", "user.sessions"),
        ("how long did booting take?", "system.boot"),
    ],
)
def test_each_kind_of_question(user: Run, request_text: str, tool: str) -> None:
    done = user("--json", "-c", request_text)
    events = json_lines(done.text)
    result = [e for e in events if e["type"] == "tool_result"]
    assert [e["tool"] for e in result] == [tool], done.text
    assert result[0]["ok"], done.text
    assert str(result[0]["output"]).strip(), done.text


def test_piped_requests(user: Run) -> None:
    done = user(stdin=QUESTION + "\n")
    assert done.status == 0
    assert "free" in done.text
    assert "\x1b" not in done.text


def test_dangerous_call_with_nobody_to_ask(user: Run, root: Run) -> None:
    done = user("-c", "stop the polkit service")
    assert done.status == 4, (done.text, done.stderr)
    assert root("systemctl show -P NRestarts polkit").status == 0


def test_the_machine_is_not_restarted_with_nobody_to_ask(user: Run, root: Run) -> None:
    done = user("-c", "reboot this machine")
    assert done.status == 4, (done.text, done.stderr)
    assert root("systemctl is-system-running").text.strip() != "stopping"
    scheduled = (
        "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager ScheduledShutdown"
    )
    assert root(f"busctl get-property {scheduled}").text.startswith('(st) "" ')


def test_command_in_the_sandbox(user: Run) -> None:
    assert user("-c", "!echo hello").text == "hello\n"
    assert user("-c", "!exit 7").status == 7
    assert user("-c", "!kill -TERM $$").status == 128 + 15


def test_bytes_pass_unchanged(user: Run) -> None:
    assert user("-c", r"!printf '\000\377\033[31m'").stdout == b"\0\xff\x1b[31m"


def test_files_of_the_user_persist_between_calls(user: Run) -> None:
    assert user("-c", "!echo kept > note.txt").status == 0
    assert user("-c", "read the file note.txt").text.find("kept") >= 0
    assert user("-c", "!rm note.txt").status == 0


def test_usage_error(user: Run) -> None:
    assert user("--no-such-option").status == 2


def test_conversation_survives_a_restart(user: Run, root: Run) -> None:
    asked = user("--session", "default", "-c", QUESTION)
    assert asked.status == 0, asked.stderr
    root("systemctl restart clawos-agent")
    for history in (user("--session", "default", "-c", "/history"), user("-c", "/history")):
        assert f"you: {QUESTION}" in history.text, (history.text, history.stderr)
    # Requests of their own leave it alone.
    assert user("-c", "what time is it?").status == 0
    assert "what time is it?" not in user("-c", "/history").text


def test_agent_down_is_said_plainly(user: Run, root: Run) -> None:
    root("systemctl mask --runtime --now clawos-agent")
    try:
        done = user("-c", QUESTION)
        assert done.status == 1
        assert b"clawos-agent" in done.stderr
        assert b"journalctl" in done.stderr
        assert b"Traceback" not in done.stderr
    finally:
        root("systemctl unmask --runtime clawos-agent; systemctl start clawos-agent")


def test_the_manual_is_there(root: Run, user: Run) -> None:
    assert "the shell of ClawOS" in root("man clawsh").text
    assert "the shell of ClawOS" in user("-c", "!man clawsh").text


def test_a_request_leans_on_the_one_before(user: Run) -> None:
    assert user("--session", "lean", "-c", "is dbus running?").status == 0
    done = user("--json", "--session", "lean", "-c", "and polkit?")
    calls = [(e["tool"], e["args"]) for e in json_lines(done.text) if e["type"] == "tool_call"]
    assert calls == [("unit.status", {"unit": "polkit"})]


def test_two_calls_of_one_request(user: Run) -> None:
    done = user("--json", "-c", "what time is it and how much memory is free?")
    calls = [e["tool"] for e in json_lines(done.text) if e["type"] == "tool_result" and e["ok"]]
    assert calls == ["time.now", "memory.usage"]


def test_what_depends_on_something_is_a_question(user: Run) -> None:
    done = user("--json", "-c", "restart dbus if it is down")
    events = json_lines(done.text)
    assert [e for e in events if e["type"] == "tool_call"] == []
    assert "I act at once or not at all" in "".join(str(e["text"]) for e in events if e["type"] == "text")
