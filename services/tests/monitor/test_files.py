"""Files of rules: what is wrong is named with file and line, and nothing of it comes into force."""

from __future__ import annotations

from pathlib import Path

import pytest

from clawos.monitor.detect.files import load
from clawos.monitor.errors import RulesInvalid

GOOD = """
[[rule]]
id = "one"
title = "One"
severity = "low"
attack = ["T1059"]
kinds = ["exec"]
match.program = ["nc"]
message = "{who} ran {command}"
react = ["log"]
"""


def put(directory: Path, text: str, name: str = "a.toml") -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / name
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (GOOD + "broken = [", 11, ""),
        (GOOD.replace('"low"', '"awful"'), 5, "awful"),
        (GOOD + GOOD, 12, "rule 'one', too"),
        (GOOD.replace("match.program", "match.programme"), 8, "no field 'programme'"),
        (GOOD.replace('["nc"]', '["@nobody"]'), 8, "no list 'nobody'"),
        (GOOD.replace('["nc"]', "[1]"), 8, "1 is no text"),
        (GOOD.replace('["nc"]', '{ regex = "(a+)+" }'), 8, "might take long"),
        (GOOD.replace('["nc"]', '{ regex = ".*.*.*x" }'), 8, "might take long"),
        (GOOD.replace('["nc"]', '{ regex = "(a" }'), 8, "no regular expression"),
        (GOOD.replace('["nc"]', "{ min = 3 }"), 8, "for numbers"),
        (GOOD.replace('["nc"]', '{ cidr = "10.0.0.0/33" }'), 8, "10.0.0.0/33"),
        (GOOD.replace('["nc"]', "{ }"), 8, "without an operator"),
        (GOOD.replace("{command}", "{commando}"), 9, "no field 'commando'"),
        (GOOD.replace('["exec"]', '["execute"]'), 7, "kinds"),
        (GOOD.replace('["exec"]', '["exec", "open"]').replace("program", "links"), 8, "no field 'links'"),
        (GOOD.replace('["log"]', '["burn"]'), 10, "burn"),
        (GOOD.replace('["nc"]', '{ sufix = "nc" }'), 8, "sufix"),
        (GOOD.replace("T1059", "1059"), 6, "attack"),
        (GOOD + "surprise = 1", 11, "surprise"),
        (GOOD + "count = 5\nby = ['process']", 2, "within_s"),
        (GOOD + "count = 5\nwithin_s = 5\nby = ['nothing']", 13, "no field 'nothing'"),
        (GOOD + "first = ['tool']\ncount = 5\nwithin_s = 5\nby = ['tool']", 2, "one of them"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = put(tmp_path / "d", text)
    with pytest.raises(RulesInvalid) as refused:
        load([tmp_path / "d"])
    assert refused.value.fields["file"] == str(file)
    assert refused.value.fields["line"] == line, refused.value.message
    assert f"{file}, line {line}: " in refused.value.message
    assert words in refused.value.message


def test_good_is_good(tmp_path: Path) -> None:
    """The control of the above."""
    put(tmp_path / "d", GOOD)
    assert len(load([tmp_path / "d"]).rules) == 1


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"[[rule]]\n" * 600, b"x" * (1024 * 1024 + 1), b"a = " + b"[" * 5000]
)
def test_what_is_no_file_of_rules_is_refused(tmp_path: Path, data: bytes) -> None:
    put(tmp_path / "d", "").write_bytes(data)
    with pytest.raises(RulesInvalid):
        load([tmp_path / "d"])


def test_the_administrators_file_wins_over_its_namesake(tmp_path: Path) -> None:
    put(tmp_path / "shipped", GOOD)
    put(tmp_path / "own", GOOD.replace('"one"', '"mine"'))
    assert [c.rule.id for c in load([tmp_path / "shipped", tmp_path / "own"]).rules] == ["mine"]
    put(tmp_path / "own", GOOD.replace('"one"', '"mine"'), "b.toml")
    with pytest.raises(RulesInvalid):
        load([tmp_path / "shipped", tmp_path / "own"])


def test_a_directory_that_is_not_there_holds_no_rules(tmp_path: Path) -> None:
    assert load([tmp_path / "nowhere"]).rules == []


def test_lists_are_named_once(tmp_path: Path) -> None:
    put(tmp_path / "d", '[lists]\nx = ["nc"]\n' + GOOD.replace('["nc"]', '["@x"]'))
    assert len(load([tmp_path / "d"]).rules) == 1
    put(tmp_path / "d", '\n[lists]\nx = ["nc"]\n', "b.toml")
    with pytest.raises(RulesInvalid, match=r"b\.toml, line 3: there is another list 'x'"):
        load([tmp_path / "d"])
