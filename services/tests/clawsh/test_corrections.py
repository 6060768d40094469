"""What is kept of an edited call: nothing until that is wanted, and then in a file of the user's own."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from clawsh.conftest import Log, Run
from clawsh.terminal import Terminal, answer

from clawos.clawsh import corrections

Start = Callable[..., Terminal]
CTRL_U = "\x15"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where corrections are kept in this test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data/clawos"


WAS = [{"tool": "unit.restart", "args": {"unit": "nginx"}}]
NOW = [{"tool": "unit.restart", "args": {"unit": "apache2"}}]


def test_an_edited_call_that_ran_is_kept_where_that_is_wanted(
    terminal: Start, log: Log, clawsh: Run, tmp_path: Path
) -> None:
    assert b"never sent anywhere" in clawsh("-c", "/corrections on").stdout
    t = terminal().prompt()
    t.type("restart nginx\r")
    answer(t, "e")
    t.expect("unit")
    t.skip()
    t.type(CTRL_U + "apache2\r")
    answer(t, "y")
    t.expect("the correction was kept")
    t.prompt()
    file = tmp_path / ".local/share/clawos/corrections.jsonl"
    assert json.loads(file.read_text()) == {"text": "restart nginx", "calls": NOW, "was": WAS}
    assert clawsh("-c", "/corrections path").stdout.decode() == f"{file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    shown = "restart nginx\n  was: unit.restart unit=nginx\n  now: unit.restart unit=apache2\n"
    assert clawsh("-c", "/corrections show").stdout.decode() == shown


@pytest.mark.parametrize(("on", "last"), [(False, "y"), (True, "n"), (True, None)])
def test_nothing_is_kept_unasked_nor_of_a_call_that_did_not_run(
    terminal: Start, log: Log, clawsh: Run, tmp_path: Path, on: bool, last: str | None
) -> None:
    if on:
        clawsh("-c", "/corrections on")
    t = terminal().prompt()
    t.type("restart nginx\r")
    if last is not None:
        answer(t, "e")
        t.expect("unit")
        t.skip()
        t.type("x\r")
    answer(t, last or "y")
    t.expect("refused" if last == "n" else "ran after yes")
    t.prompt()
    assert not (tmp_path / ".local/share/clawos/corrections.jsonl").exists()


def test_a_correction_holds_every_call_of_the_turn(
    terminal: Start, log: Log, clawsh: Run, tmp_path: Path
) -> None:
    clawsh("-c", "/corrections on")
    t = terminal().prompt()
    t.type("twice one two\r")
    answer(t, "y")
    answer(t, "e")
    t.expect("unit")
    t.skip()
    t.type("x\r")
    answer(t, "y")
    t.expect("the correction was kept")
    kept = json.loads((tmp_path / ".local/share/clawos/corrections.jsonl").read_text())
    assert [call["args"]["unit"] for call in kept["was"]] == ["one", "two"]
    assert [call["args"]["unit"] for call in kept["calls"]] == ["one", "twox"]


def test_corrections_are_off_until_they_are_on(clawsh: Run, log: Log, tmp_path: Path) -> None:
    said = [
        clawsh("-c", f"/corrections{word}").stdout.decode() for word in ("", " on", "", " off", " off", "")
    ]
    assert ["not kept" in words for words in said] == [True, False, False, True, True, True]
    assert "/corrections clear" in said[0]
    done = clawsh("-c", "/corrections sometimes")
    assert (done.returncode, b"on, off, show, clear, path" in done.stderr) == (1, True)
    assert not log.calls("Ask")
    assert not log.calls("OpenSession")


def test_show_prints_the_corrections_and_passes_over_what_is_none(
    clawsh: Run, home: Path, tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    done = clawsh("-c", "/corrections show", XDG_DATA_HOME=data)
    assert (done.returncode, done.stdout) == (0, b"")
    corrections.add("restart\x1b[31m it", NOW, WAS)
    with (home / "corrections.jsonl").open("ab") as file:
        file.write(
            b'not json\n\n\xff\n{"text": 1}\n' + b"[" * 100_000 + b'\n{"text":"x","calls":[1],"was":[]}\n{"te'
        )
    corrections.add("second", NOW, WAS)
    done = clawsh("-c", "/corrections show", XDG_DATA_HOME=data)
    calls = "  was: unit.restart unit=nginx\n  now: unit.restart unit=apache2\n"
    assert done.stdout.decode() == f"restart\\x1b[31m it\n{calls}second\n{calls}"
    assert b"passed over: line 2, 4, 5, 6, 7, ...\n" in done.stderr
    assert clawsh("-c", "/corrections clear", XDG_DATA_HOME=data).stdout == b"removed\n"
    assert clawsh("-c", "/corrections clear", XDG_DATA_HOME=data).stdout == b"there are none\n"
    assert not (home / "corrections.jsonl").exists()


def test_a_full_file_says_so_and_stays_as_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corrections.add("first", NOW, WAS)
    size = (home / "corrections.jsonl").stat().st_size
    monkeypatch.setattr(corrections, "MAX_BYTES", size + 10)
    with pytest.raises(corrections.CorrectionsUnusable, match="is full"):
        corrections.add("second", NOW, WAS)
    assert (home / "corrections.jsonl").stat().st_size == size


def test_a_full_disk_leaves_no_half_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corrections.add("first", NOW, WAS)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
    with pytest.raises(corrections.CorrectionsUnusable, match="No space"):
        corrections.add("second", NOW, WAS)
    monkeypatch.undo()
    assert len((home / "corrections.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_plain_file_is_not_written_to(home: Path, tmp_path: Path, kind: str) -> None:
    home.mkdir(parents=True)
    file = home / "corrections.jsonl"
    match kind:
        case "link":
            file.symlink_to(tmp_path / "elsewhere")
        case "fifo":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
    with pytest.raises(corrections.CorrectionsUnusable):
        corrections.add("first", NOW, WAS)
    assert not (tmp_path / "elsewhere").exists()
    if kind != "link":
        with pytest.raises(corrections.CorrectionsUnusable):
            corrections.load()


def test_a_file_that_others_could_read_is_closed_to_them(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "corrections.jsonl").write_text("")
    (home / "corrections.jsonl").chmod(0o644)
    corrections.add("first", NOW, WAS)
    assert stat.S_IMODE((home / "corrections.jsonl").stat().st_mode) == 0o600


def test_a_home_that_cannot_be_written_ends_no_request(terminal: Start, log: Log, tmp_path: Path) -> None:
    data = tmp_path / "data/clawos"
    data.mkdir(parents=True)
    (data / "corrections.on").touch()
    (data / "corrections.jsonl").mkdir()
    t = terminal(XDG_DATA_HOME=str(tmp_path / "data")).prompt()
    t.type("restart nginx\r")
    answer(t, "e")
    t.expect("unit")
    t.skip()
    t.type("x\r")
    answer(t, "y")
    t.expect("ran after yes")
    t.expect("Is a directory")
    t.prompt()


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/clawos"),
        ({"XDG_DATA_HOME": "x", "HOME": "/h"}, "/h/.local/share/clawos"),
        ({"XDG_DATA_HOME": "", "HOME": "/h"}, "/h/.local/share/clawos"),
        ({"HOME": "/h"}, "/h/.local/share/clawos"),
    ],
)
def test_where_corrections_are(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert corrections.directory() == place


def test_tab_completes_the_words_of_corrections(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("/corrections pa\t")
    t.expect("th")
    t.type("\r")
    t.expect("corrections.jsonl")
