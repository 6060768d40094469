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


def test_a_tilde_is_the_home_of_whoever_asks(home: Path) -> None:
    ran = run(home, "expand-home", "/bin/echo", "a b", "--", "~/notes")
    assert ran.stdout == f"a b -- {home}/notes\n"
    assert run(home, "expand-home", "/bin/echo", "~").stdout == f"{home}\n"
    assert run(home, "expand-home", "/bin/echo", "a~", "x~").stdout == "a~ x~\n"
    assert run(home, "expand-home", "/bin/echo").stdout == "\n"


def test_copy(home: Path) -> None:
    assert run(home, "copy-file", "copy", "notes/todo.txt", "copy.txt").stdout == (
        "Copied notes/todo.txt to copy.txt.\n"
    )
    assert (home / "copy.txt").read_text() == (home / "notes" / "todo.txt").read_text()
    assert run(home, "copy-file", "copy", "~/copy.txt", "notes").returncode == 0
    assert (home / "notes" / "copy.txt").exists()
    assert run(home, "copy-file", "copy", "notes", "more").returncode == 0
    assert (home / "more" / "-dash").read_text() == "dash\n"
    assert sorted(p.name for p in home.iterdir()) == ["copy.txt", "empty", "more", "notes", "picture.bin"]


def test_move_and_rename(home: Path) -> None:
    assert run(
        home, "copy-file", "move", "notes/-dash", "~/dash"
    ).stdout == "Moved notes/-dash to ~/dash.\n".replace("~", str(home))
    assert (home / "dash").read_text() == "dash\n"
    assert run(home, "copy-file", "move", "dash", "notes/").returncode == 0
    assert (home / "notes" / "dash").exists()
    assert not (home / "dash").exists()


@pytest.mark.parametrize("what", ["copy", "move"])
@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("missing", "x", "there is no missing"),
        ("empty", "picture.bin", "picture.bin is there already"),
        ("empty", "nowhere/x", "there is no directory"),
        ("notes", "notes/inside", "cannot go into itself"),
        ("notes", "notes", "cannot go into itself"),
        ("empty", "/proc/x", "tools change only your home"),
    ],
)
def test_neither_overwrites_nor_guesses(home: Path, what: str, source: str, target: str, words: str) -> None:
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    ran = run(home, "copy-file", what, source, target)
    assert ran.returncode == 1
    assert words in ran.stderr or "cannot be copied" in ran.stderr
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


def test_make_directory(home: Path) -> None:
    assert run(home, "make-directory", "a/b c").stdout == "Made the directory a/b c.\n"
    assert (home / "a" / "b c").is_dir()
    assert "is there already" in run(home, "make-directory", "~/a").stderr
    assert "is a file" in run(home, "make-directory", "empty").stderr
    assert "only your home" in run(home, "make-directory", "/proc/x").stderr


def test_directory_size(home: Path) -> None:
    (home / "big").write_bytes(b"x" * 300_000)
    lines = run(home, "directory-size").stdout.splitlines()
    assert lines[0].startswith(f"{home} takes ")
    assert lines[1].endswith("  big")
    assert "KiB" in lines[1]
    assert "there is no nowhere" in run(home, "directory-size", "nowhere").stderr


def test_file_info(home: Path) -> None:
    os.utime(home / "notes" / "todo.txt", (0, 86400 * 365))
    shown = run(home, "file-info", "~/notes/todo.txt").stdout
    assert "Kind:      regular file" in shown
    assert "Size:      19 bytes" in shown
    assert "Owner:     you" in shown
    assert "01 January 1971" in shown
    assert "Owner:     root" in run(home, "file-info", "/etc/passwd").stdout
    assert "there is no nowhere" in run(home, "file-info", "nowhere").stderr


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("1 + 1", "2\n"),
        ("print('hello')", "hello\n"),
        ("x = 2\nx * 21", "42\n"),
        ("x = 2", ""),
        ("import math; math.factorial(5)", "120\n"),
        ("", ""),
    ],
)
def test_python(home: Path, code: str, output: str) -> None:
    ran = run(home, "run-python", code)
    assert (ran.returncode, ran.stdout) == (0, output)


def test_python_says_what_went_wrong(home: Path) -> None:
    assert "ZeroDivisionError" in run(home, "run-python", "1/0").stderr
    assert "SyntaxError" in run(home, "run-python", "print(").stderr


@pytest.fixture
def zones(tmp_path: Path) -> Path:
    folder = tmp_path / "zones"
    for name, data in {
        "Europe/Vienna": b"TZif vienna",
        "Asia/Tokyo": b"TZif tokyo",
        "Japan": b"TZif tokyo",
        "posix/Asia/Tokyo": b"TZif tokyo",
        "America/Indiana/Knox": b"TZif one",
        "America/Knox": b"TZif two",
        "America/New_York": b"TZif york",
        "zone.tab": b"# no zone",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("said", "called"),
    [
        ("europe/vienna", "Europe/Vienna"),
        ("Vienna", "Europe/Vienna"),
        ("tokyo", "Asia/Tokyo"),
        ("new york", "America/New_York"),
    ],
)
def test_time_zone_by_zone_or_city(
    home: Path, zones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, called: str
) -> None:
    """busctl is the one outside: here it writes down what it is asked."""
    (tmp_path / "busctl").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n')
    (tmp_path / "busctl").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(home), "CLAWOS_ZONES": str(zones)}
    ran = subprocess.run(
        [TOOLS / "settings", "time-zone", said], env=env, capture_output=True, text=True, check=False
    )
    assert ran.stdout.startswith(f"The time zone is {called}: ")
    assert (tmp_path / "asked").read_text().split()[-4:] == ["SetTimezone", "sb", called, "false"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("atlantis", "there is no time zone"),
        ("knox", "there are several"),
        ("zone.tab", "is no time zone"),
        ("../../etc/passwd", "is no time zone"),
        ("*", "is no time zone"),
        ("", "is no time zone"),
    ],
)
def test_what_is_no_time_zone(home: Path, zones: Path, said: str, words: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "CLAWOS_ZONES": str(zones)}
    ran = subprocess.run(
        [TOOLS / "settings", "time-zone", said], env=env, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert words in ran.stderr


@pytest.mark.parametrize("name", ["-x", "a..b", "a b", "a_b", "x" * 65, "", "-", "a-.b", "ü"])
def test_what_is_no_host_name(home: Path, name: str) -> None:
    ran = run(home, "settings", "host-name", name)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "host-name: " in ran.stderr
