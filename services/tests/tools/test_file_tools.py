"""Tools for files, the calculator, units and the log."""

from __future__ import annotations

import os
import subprocess
import time
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
    """A PATH whose programs of systemd answer from a file and note what they were asked."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name in ("systemctl", "journalctl", "loginctl", "systemd-analyze", "busctl"):
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


def test_copy_of_a_link_is_what_it_leads_to(home: Path) -> None:
    (home / "link").symlink_to("notes/todo.txt")
    assert run(home, "copy-file", "copy", "link", "notes/copy").returncode == 0
    assert (home / "notes" / "copy").read_text() == "buy milk\nCall Anna\n"
    assert not (home / "notes" / "copy").is_symlink()


def test_copy_that_fails_leaves_nothing(home: Path) -> None:
    (home / "broken").symlink_to("nowhere")
    ran = run(home, "copy-file", "copy", "broken", "x")
    assert (ran.returncode, ran.stderr) == (
        1,
        "copy: broken cannot be copied to x: No such file or directory\n",
    )
    assert sorted(p.name for p in home.iterdir()) == ["broken", "empty", "notes", "picture.bin"]


def test_move_and_rename(home: Path) -> None:
    moved = run(home, "copy-file", "move", "notes/-dash", "~/dash").stdout
    assert moved == f"Moved notes/-dash to {home}/dash.\n"
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
        ("empty", "later/", "there is no directory later/"),
        ("empty", "/proc/x", "to /proc/x: No such file or directory"),
    ],
)
def test_neither_overwrites_nor_guesses(home: Path, what: str, source: str, target: str, words: str) -> None:
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    ran = run(home, "copy-file", what, source, target)
    assert ran.returncode == 1
    assert (ran.stdout, len(ran.stderr.splitlines())) == ("", 1)
    assert words in ran.stderr
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
    assert run(home, "directory-size", "notes").stdout.startswith("notes takes ")
    assert "there is no nowhere" in run(home, "directory-size", "nowhere").stderr


def test_directory_size_shows_the_largest_first(home: Path) -> None:
    for i in range(20):
        (home / "notes" / f"part {i:02}\n").write_bytes(b"x" * (i + 1) * 100_000)
    lines = run(home, "directory-size", "~/notes").stdout.splitlines()
    assert [line[18:] for line in lines[1:4]] == ["part 19?", "part 18?", "part 17?"]
    assert (len(lines), lines[-1]) == (17, "(the largest 15 of 22)")


def test_directory_size_with_one_part_that_is_all(tmp_path: Path) -> None:
    """du names the whole last: as large as its only part, it must still come first."""
    (tmp_path / "du").write_text("#!/bin/sh\nprintf '4\\t./x/part\\0004\\t./x\\000'\n")
    (tmp_path / "du").chmod(0o755)
    (tmp_path / "x").mkdir()
    ran = run(tmp_path, "directory-size", "x", path=f"{tmp_path}:{os.environ['PATH']}")
    assert ran.stdout == "x takes 4 KiB.\n     4 KiB 100 %  part\n"


def test_file_info(home: Path) -> None:
    os.utime(home / "notes" / "todo.txt", (0, 86400 * 365))
    shown = run(home, "file-info", "~/notes/todo.txt").stdout
    assert "Kind:      regular file" in shown
    assert "Size:      19 bytes" in shown
    assert "Owner:     you" in shown
    assert "01 January 1971" in shown
    assert "(" not in shown.split("Access")[0], "a small size needs no second unit"
    assert "there is no nowhere" in run(home, "file-info", "nowhere").stderr


def test_file_info_of_other_kinds(home: Path) -> None:
    (home / "large").write_bytes(b"x" * 3_500_000)
    (home / "link").symlink_to("large")
    (home / "broken").symlink_to("nowhere")
    os.chown(home / "large", 65534, 65534)
    assert "Size:      3500000 bytes (3.4 MiB)\nOwner:     the system, or somebody else\n" in (
        run(home, "file-info", "large").stdout
    )
    assert "Kind:      symbolic link\nLeads to:  large\n" in run(home, "file-info", "link").stdout
    assert "Leads to:  nowhere, which is not there\n" in run(home, "file-info", "broken").stdout
    assert "Kind:      directory\nHolds:     2 entries\n" in run(home, "file-info", "notes").stdout


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
    ran = run(home, "run-python", "print('so far')\ndef f():\n    return 1 / 0\nf()")
    assert (ran.returncode, ran.stdout) == (1, "so far\n")
    assert "ZeroDivisionError: division by zero" in ran.stderr
    assert "return 1 / 0" in ran.stderr
    assert "run-python" not in ran.stderr, "its own rows tell the person nothing"
    ran = run(home, "run-python", "print(")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "SyntaxError" in ran.stderr
    assert "run-python" not in ran.stderr
    assert run(home, "run-python", "import sys; sys.exit(7)").returncode == 7


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
        "localtime": b"TZif here",
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
    home: Path, zones: Path, tmp_path: Path, systemd: str, said: str, called: str
) -> None:
    env = {"PATH": systemd, "HOME": str(home), "CLAWOS_ZONES": str(zones)}
    ran = subprocess.run(
        [TOOLS / "settings", "time-zone", said], env=env, capture_output=True, text=True, check=False
    )
    assert ran.stdout.startswith(f"The time zone is {called}: ")
    assert (tmp_path / "asked").read_text().split()[-4:] == ["SetTimezone", "sb", called, "false"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("atlantis", "there is no time zone"),
        ("york", "perhaps America/New_York?"),
        ("localtime", "there is no time zone"),
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


def test_host_name(home: Path, tmp_path: Path, systemd: str) -> None:
    for name in ("media-box", "Box7.example.org", "a", "x" * 63, "7"):
        ran = run(home, "settings", "host-name", name, path=systemd)
        assert (ran.returncode, ran.stdout) == (0, f"This machine is called {name}.\n")
        assert (tmp_path / "asked").read_text().split()[-4:] == ["SetStaticHostname", "sb", name, "false"]


def test_setting_that_is_denied(home: Path, tmp_path: Path, systemd: str) -> None:
    (tmp_path / "answer").write_text("Call failed: Access denied\n")
    (tmp_path / "code").write_text("1")
    ran = run(home, "settings", "host-name", "box", path=systemd)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "host-name: Access denied\n")


@pytest.mark.parametrize(
    "name", ["-x", "a..b", "a b", "a_b", "x" * 64, "x.y" * 22, "", "-", "a-.b", "ü", "a.", ".a", "a/b"]
)
def test_what_is_no_host_name(home: Path, name: str) -> None:
    ran = run(home, "settings", "host-name", name)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "host-name: " in ran.stderr


@pytest.mark.parametrize(
    ("word", "kind", "said"), [("off", "poweroff", "shuts down"), ("restart", "reboot", "restarts")]
)
def test_power(home: Path, tmp_path: Path, systemd: str, word: str, kind: str, said: str) -> None:
    before = time.time()
    assert run(home, "power", word, path=systemd).stdout == f"The machine {said} in a few seconds.\n"
    *call, asked_kind, at = (tmp_path / "asked").read_text().split()
    assert call[-2:] == ["ScheduleShutdown", "st"]
    assert asked_kind == kind
    assert 2 <= int(at) / 1e6 - before <= 30, "time to read the answer, and no more"


def test_power_that_is_denied(home: Path, tmp_path: Path, systemd: str) -> None:
    (tmp_path / "answer").write_text("Call failed: Access denied\nmore\n")
    (tmp_path / "code").write_text("1")
    ran = run(home, "power", "off", path=systemd)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "power: Access denied\n")


def test_power_says_what_must_not_be_interrupted(home: Path, tmp_path: Path, systemd: str) -> None:
    (tmp_path / "bin" / "busctl").write_text(
        f"#!/bin/sh\ncase $* in *ListInhibitors) cat {tmp_path}/answer; exit;; esac\n"
        "echo 'Call failed: Access denied'\nexit 1\n"
    )
    (tmp_path / "answer").write_text(
        'a(ssssuu) 4 "sleep" "ann" "film" "block" 0 1 "shutdown:sleep" "apt" "upgrade" "block" 0 2 '
        '"shutdown" "agent" "saves" "delay" 0 3 "idle:shutdown" "backup" "to tape" "block" 0 4\n'
    )
    assert run(home, "power", "restart", path=systemd).stderr == (
        "power: Access denied; this must not be interrupted: apt (upgrade), backup (to tape)\n"
    )


@pytest.mark.parametrize("arguments", [[], ["on"], ["--force"], ["halt"]])
def test_power_refuses_what_it_does_not_know(home: Path, systemd: str, arguments: list[str]) -> None:
    ran = run(home, "power", *arguments, path=systemd)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "usage: power off|restart\n")


def test_boot_time(home: Path, tmp_path: Path, systemd: str) -> None:
    (tmp_path / "answer").write_text("Startup finished in 1.1s (kernel) + 9s (userspace) = 10.1s \nmore\n")
    lines = run(home, "boot-time", path=systemd).stdout.splitlines()
    assert lines[:3] == [
        "Startup finished in 1.1s (kernel) + 9s (userspace) = 10.1s",
        "",
        "The slowest units:",
    ]
    rows = [f"{9 - i}s unit{i}.service  \n7s dev-tty{i}.device\n" for i in range(12)]
    (tmp_path / "answer").write_text("".join(rows))
    lines = run(home, "boot-time", path=systemd).stdout.splitlines()
    assert lines[3:] == [f"{9 - i}s unit{i}.service" for i in range(10)]
    (tmp_path / "answer").write_text("Bootup is not yet finished.\nPlease try again later.\n")
    (tmp_path / "code").write_text("1")
    ran = run(home, "boot-time", path=systemd)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "boot-time: Bootup is not yet finished.\n")


SESSIONS = """\
Timestamp=Sat 2026-11-21 07:30:33 UTC
RemoteHost=
Name=ann
TTY=tty1
Class=user

Timestamp=Sat 2026-11-21 07:30:33 UTC
RemoteHost=
Name=ann
TTY=
Class=manager

Timestamp=Sat 2026-11-21 08:00:00 UTC
RemoteHost=10.0.2.2
Name=bob
TTY=pts/0
Class=user
"""


def test_sessions(home: Path, tmp_path: Path, systemd: str) -> None:
    assert run(home, "sessions", path=systemd).stdout == "Nobody is logged in.\n"
    loginctl = tmp_path / "bin" / "loginctl"
    loginctl.write_text(
        f"#!/bin/sh\ncase $1 in list-sessions) printf '  1 a\\n c2 b\\n' ;; *) cat {tmp_path}/answer; esac\n"
    )
    (tmp_path / "answer").write_text(SESSIONS)
    assert [line.split(maxsplit=2) for line in run(home, "sessions", path=systemd).stdout.splitlines()] == [
        ["USER", "TERMINAL", "SINCE"],
        ["ann", "tty1", "Sat 2026-11-21 07:30:33 UTC"],
        ["bob", "pts/0", "Sat 2026-11-21 08:00:00 UTC from 10.0.2.2"],
    ]
    (tmp_path / "answer").write_text(SESSIONS.split("\n\n")[1])
    assert run(home, "sessions", path=systemd).stdout == "Nobody is logged in.\n"


def test_sessions_without_logind(home: Path, tmp_path: Path, systemd: str) -> None:
    (tmp_path / "answer").write_text("Failed to list sessions: Connection refused\n")
    (tmp_path / "code").write_text("1")
    ran = run(home, "sessions", path=systemd)
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        1,
        "",
        "sessions: logind does not answer: Connection refused\n",
    )
