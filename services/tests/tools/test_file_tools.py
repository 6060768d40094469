"""Tools for files, the calculator, units and the log."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "notes").mkdir(parents=True)
    (home / "notes" / "todo.txt").write_text("buy milk\nCall Anna\n")
    (home / "notes" / "-dash").write_text("dash\n")
    (home / "picture.bin").write_bytes(b"\x89PNG\x00\x01\x02")
    (home / "empty").write_text("")
    return home


def run(home: Path, tool: str, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    env = {"PATH": path or os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    return subprocess.run(
        [TOOLS / tool, *arguments], env=env, cwd=home, capture_output=True, text=True, check=False, timeout=30
    )


def test_show_file(home: Path) -> None:
    assert run(home, "show-file", "notes/todo.txt").stdout == "buy milk\nCall Anna\n"
    assert run(home, "show-file", "~/notes/todo.txt", "1").stdout == "buy milk\n(the first 1 of 2 lines)\n"
    assert run(home, "show-file", "notes/-dash").stdout == "dash\n"
    assert run(home, "show-file", "empty").stdout == "empty is empty.\n"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", "there is no missing"),
        ("notes", "notes is a directory"),
        ("picture.bin", "does not hold text"),
        ("/dev/null", "not a plain file"),
    ],
)
def test_show_file_says_why_not(home: Path, path: str, words: str) -> None:
    ran = run(home, "show-file", path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert words in ran.stderr


def test_find_file(home: Path) -> None:
    assert run(home, "find-file", "TODO").stdout.splitlines()[0] == f"{home}/notes/todo.txt"
    assert run(home, "find-file", "*.txt", "~/notes").stdout == f"{home}/notes/todo.txt\n"
    assert run(home, "find-file", "nothing-like-it", "notes").stdout == (
        "No file is called *nothing-like-it* below notes.\n"
    )
    assert run(home, "find-file", "x", "/nowhere").stderr == (
        "find-file: there is no /nowhere, or tools may not see it\n"
    )


def test_find_file_stops_at_its_limit(home: Path) -> None:
    for i in range(250):
        (home / f"many{i}").touch()
    lines = run(home, "find-file", "many*", ".").stdout.splitlines()
    assert (len(lines), lines[-1]) == (201, "(the first 200 of 250)")


def test_search_text(home: Path) -> None:
    assert run(home, "search-text", "anna").stdout == f"{home}/notes/todo.txt:2:Call Anna\n"
    assert run(home, "search-text", "MILK", "notes/todo.txt").stdout == "notes/todo.txt:1:buy milk\n"
    assert run(home, "search-text", "a.*b").stdout == f'No line below {home} holds "a.*b".\n'
    assert run(home, "search-text", "-dash").returncode == 0
    assert "there is no x" in run(home, "search-text", "y", "x").stderr


def test_write_file(home: Path) -> None:
    assert run(home, "write-file", "new.txt", "one\ntwo").stdout == "Wrote new.txt.\n"
    assert (home / "new.txt").read_text() == "one\ntwo\n"
    run(home, "write-file", "~/new.txt", "%s \\n three\n")
    assert (home / "new.txt").read_text() == "%s \\n three\n", "a text is not a format"
    run(home, "write-file", "new.txt", "")
    assert (home / "new.txt").read_text() == ""
    assert sorted(p.name for p in home.iterdir()) == ["empty", "new.txt", "notes", "picture.bin"]


def test_write_file_says_why_not(home: Path) -> None:
    assert "is a directory" in run(home, "write-file", "notes", "x").stderr
    assert "no directory ./deep/er" in run(home, "write-file", "deep/er/x", "x").stderr
    ran = run(home, "write-file", "/proc/x", "x")
    assert (ran.returncode, ran.stderr) == (1, "write-file: /proc/x cannot be written; only your home can\n")


def test_disk(home: Path) -> None:
    lines = run(home, "disk").stdout.splitlines()
    assert lines[0].split() == ["DISK", "SIZE", "USED", "FREE", "FREE"]
    assert lines[1].split()[-1] == "%"
    assert run(home, "disk", "/home/somebody").returncode == 0
    assert run(home, "disk", "/nowhere").stderr == "disk: there is no /nowhere, or tools may not see it\n"


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("12 * (3 + 4)", "84"),
        ("2^10", "1024"),
        ("2**-1", "0.5"),
        ("7/2", "3.5"),
        ("6/3", "2"),
        ("7 // 2", "3"),
        ("7 % 4", "3"),
        ("0.1 + 0.2", "0.3"),
        ("-3 + +2", "-1"),
        ("sqrt(16)", "4"),
        ("sqrt(2)", "1.41421356237"),
        ("3 × 4 ÷ 6 − 1", "1"),
        ("15% of 80", "12"),
        ("max(1, 2, 3) * PI", "9.42477796077"),
        ("factorial(20)", "2432902008176640000"),
        ("2 + 2 =", "4"),
        ("10**20", "100000000000000000000"),
        ("1e3", "1000"),
    ],
)
def test_calculate(home: Path, expression: str, result: str) -> None:
    ran = run(home, "calculate", expression)
    assert (ran.stdout, ran.stderr) == (f"{result}\n", "")


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("1/0", "division by zero"),
        ("9**9**9", "too large"),
        ("10**10**10", "too large"),
        ("factorial(9999999)", "factorial takes"),
        ("1e308 * 10", "too large"),
        ("2 **", "not an expression"),
        ("", "not an expression"),
        ("(-8) ** 0.5", "not a real number"),
        ("__import__('os').system('id')", "only numbers"),
        ("().__class__", "only numbers"),
        ("[1] * 1000000000", "only numbers"),
        ("'a' * 100", "only numbers"),
        ("x", "only numbers"),
        ("True + 1", "only numbers"),
        ("1" * 300, "longer than 256"),
        ("(" * 120 + "1" + ")" * 120 + "+", "not an expression"),
        ("-" * 100 + "1", "nested too deeply"),
        ("max(sqrt)", "only numbers"),
    ],
)
def test_calculate_says_why_not(home: Path, expression: str, words: str) -> None:
    ran = run(home, "calculate", expression)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert words in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.fixture
def systemd(tmp_path: Path) -> str:
    """A PATH whose systemctl and journalctl answer from a file and note what they were asked."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name in ("systemctl", "journalctl"):
        program = bin_dir / name
        program.write_text(
            f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/answer\nexit "$(cat {tmp_path}/code)"\n'
        )
        program.chmod(0o755)
    (tmp_path / "code").write_text("0")
    (tmp_path / "answer").write_text("")
    return f"{bin_dir}:{os.environ['PATH']}"


SHOWN = """\
Id=ssh.service
Description=OpenBSD Secure Shell server
LoadState=loaded
ActiveState={active}
SubState={sub}
Result=exit-code
MainPID=812
MemoryCurrent=4404019
StateChangeTimestamp=Fri 2025-06-20 10:00:00 UTC
UnitFileState=enabled
"""


@pytest.mark.parametrize(
    ("active", "sub", "words"),
    [
        ("active", "running", "ssh.service is running since Fri 2025-06-20 10:00:00 UTC."),
        ("active", "exited", "ssh.service is active (exited) since"),
        ("failed", "failed", "ssh.service has failed (exit-code) since"),
        ("inactive", "dead", "ssh.service is not running (inactive) since"),
    ],
)
def test_unit_status(home: Path, tmp_path: Path, systemd: str, active: str, sub: str, words: str) -> None:
    (tmp_path / "answer").write_text(SHOWN.format(active=active, sub=sub))
    text = run(home, "units", "status", "ssh", path=systemd).stdout
    assert text.startswith(words)
    assert "Main process: 812\nMemory: 4.2 MiB\nAt boot: enabled\n" in text
    assert (tmp_path / "asked").read_text().endswith("-- ssh.service\n")


def test_unit_that_does_not_exist(home: Path, tmp_path: Path, systemd: str) -> None:
    (tmp_path / "answer").write_text("Id=x.service\nLoadState=not-found\nActiveState=inactive\n")
    ran = run(home, "units", "status", "x", path=systemd)
    assert (ran.returncode, ran.stderr) == (1, "units: there is no unit x.service\n")


def test_unit_list(home: Path, tmp_path: Path, systemd: str) -> None:
    assert run(home, "units", "list", "failed", path=systemd).stdout == "No unit is failed.\n"
    (tmp_path / "answer").write_text("ssh.service loaded active running OpenBSD Secure Shell server\n")
    (row,) = run(home, "units", "list", path=systemd).stdout.splitlines()
    assert row.split(maxsplit=2) == ["ssh.service", "running", "OpenBSD Secure Shell server"]
    assert "--state=running" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("verb", "words"), [("start", "Started"), ("stop", "Stopped"), ("restart", "Restarted")]
)
def test_unit_verbs(home: Path, tmp_path: Path, systemd: str, verb: str, words: str) -> None:
    assert run(home, "units", verb, "a.timer", path=systemd).stdout == f"{words} a.timer.\n"
    assert (tmp_path / "asked").read_text() == f"--no-ask-password --no-pager {verb} -- a.timer\n"


def test_unit_verb_that_is_denied(home: Path, tmp_path: Path, systemd: str) -> None:
    (tmp_path / "answer").write_text(
        "Failed to stop a.service: Access denied\nSee system logs and 'systemctl'.\n"
    )
    (tmp_path / "code").write_text("4")
    ran = run(home, "units", "stop", "a", path=systemd)
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        1,
        "",
        "units: Failed to stop a.service: Access denied\n",
    )


@pytest.mark.parametrize("arguments", [["stop", "--now"], ["status"], ["mask", "x"], ["list", "odd"]])
def test_units_refuses_what_it_does_not_know(home: Path, systemd: str, arguments: list[str]) -> None:
    ran = run(home, "units", *arguments, path=systemd)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("units: ")


def test_journal(home: Path, tmp_path: Path, systemd: str) -> None:
    asked = tmp_path / "asked"
    assert run(home, "journal", path=systemd).stdout == "The log holds no such lines.\n"
    assert asked.read_text() == "--no-pager -q -o short -n 20\n"
    arguments = ("--unit", "ssh", "--lines", "5", "--priority", "error")
    assert run(home, "journal", *arguments, path=systemd).stdout == "The log holds no such lines of ssh.\n"
    assert asked.read_text() == "--no-pager -q -o short -n 5 --unit=ssh --priority=err\n"
    (tmp_path / "answer").write_text("Jun 20 10:00:00 claw sshd[1]: hello\n")
    assert run(home, "journal", path=systemd).stdout == "Jun 20 10:00:00 claw sshd[1]: hello\n"


def test_journal_says_why_not(home: Path, tmp_path: Path, systemd: str) -> None:
    assert run(home, "journal", "--since", "x", path=systemd).stderr.startswith("usage: journal")
    (tmp_path / "code").write_text("1")
    (tmp_path / "answer").write_text("No journal files were opened due to insufficient permissions.\n")
    ran = run(home, "journal", path=systemd)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "insufficient permissions" in ran.stderr
