"""The words of a question, and the editing of a call."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clawsh.conftest import Log
from clawsh.terminal import QUESTION, Terminal, answer, settled

from clawos.clawsh import approval, editing
from clawos.clawsh.events import Event
from clawos.clawsh.interrupt import Interrupts
from clawos.clawsh.sink import Sink

Start = Callable[..., Terminal]
CTRL_C, CTRL_D, CTRL_U = "\x03", "\x04", "\x15"


def words(asks: str, args: dict[str, Any], kind: str = "cautious", *, styled: bool = False) -> str:
    """The question as it stands on a terminal."""
    read_fd, write_fd = os.pipe()
    sink = Sink(write_fd, terminal=True)
    sink.styled = styled
    event = Event(
        {
            "type": "approval_required",
            "call": "c",
            "tool": "a.tool",
            "args": args,
            "class": kind,
            "asks": asks,
        }
    )
    sink.write(approval._question(event, args, sink))
    os.close(write_fd)
    with os.fdopen(read_fd, encoding="utf-8") as shown:
        return shown.read()


@pytest.mark.parametrize(
    ("asks", "args", "shown"),
    [
        ("restart {unit}", {"unit": "nginx"}, "restart nginx"),
        ("write {text} to {path}", {"path": "a", "text": "hi you"}, "write 'hi you' to a"),
        ("delete {path}", {"path": "a? [y]es"}, "delete 'a? [y]es'"),
        ("delete {path}", {"path": "a?[y]es"}, "delete 'a?[y]es'"),
        ("delete {path}", {"path": "it's"}, "delete 'it\\'s'"),
        ("delete {path}", {"path": ""}, "delete ''"),
        ("delete {path}", {"path": "a\x1b[31m\u202eb\r"}, "delete 'a\\x1b[31m\\u202eb\\r'"),
        ("", {"n": 3, "on": True}, "a.tool n=3 on=True"),
        ("", {}, "a.tool"),
        # A sentence that names what the call does not have is no sentence for it.
        ("restart {unit}", {"path": "a"}, "a.tool path=a"),
        # What does not fit into a sentence, and what the sentence leaves out, is shown whole above it.
        ("write {text} to {path}", {"path": "a", "text": "x\ny"}, "  text = x\\ny\nwrite (text, above) to a"),
        ("run {command}", {"command": "x" * 61}, f"  command = {'x' * 61}\nrun (command, above)"),
        ("restart {unit}", {"unit": "a", "force": "b c"}, "  force = 'b c'\nrestart a"),
        (
            "restart {unit}",
            {"unit": "\u0430"},
            "  unit holds characters beyond ASCII: U+0430 \u0430\nrestart \u0430",
        ),
    ],
)
def test_the_question_is_a_sentence(asks: str, args: dict[str, Any], shown: str) -> None:
    assert words(asks, args) == shown


def test_values_are_bold_and_danger_is_marked() -> None:
    assert words("delete {path}", {"path": "a"}, "dangerous", styled=True) == (
        "\x1b[1;33mDANGEROUS: \x1b[0mdelete \x1b[1ma\x1b[0m"
    )
    assert words("delete {path}", {"path": "a"}, "dangerous") == "DANGEROUS: delete a"


def test_no_value_is_shown_in_part_up_to_the_longest_command() -> None:
    command = "x" * 4096
    assert words("run {command}", {"command": command}) == f"  command = {command}\nrun (command, above)"


def test_a_call_without_arguments_has_nothing_to_edit(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("bare\r")
    t.expect("lamp.out? [y]es [n]o [a]lways: ")
    settled()
    t.type("e\r")
    t.expect("in this shell\x1b[0m\r\n")
    t.expect("[a]lways: ")
    t.type("y\r")
    t.expect("ran after yes")


@pytest.mark.parametrize("term", ["xterm", "vt220", "dumb"])
def test_an_edited_call_stands_in_the_question_and_only_yes_runs_it(
    terminal: Start, log: Log, term: str
) -> None:
    t = terminal(TERM=term, NO_COLOR="1").prompt()
    t.type("restart nginx\r")
    t.expect("restart nginx? ")
    answer(t, "e")
    t.expect("unit [nginx]: " if term == "dumb" else "unit: ")
    t.type("apache2\r" if term == "dumb" else CTRL_U + "apache2\r")
    t.expect("restart apache2? ")
    assert not log.calls("Approve")
    answer(t, "y")
    t.expect("* unit.restart unit=apache2  (edited)")
    t.expect("ran after yes")
    (given,) = log.calls("Approve")
    assert (given["decision"], given["args"]) == ("yes", {"unit": "apache2"})
    if term == "dumb":
        assert b"\x1b" not in t.seen


def test_the_value_is_there_to_be_edited(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("restart ngin\r")
    answer(t, "e")
    t.expect("ngin")
    settled()
    t.type("x\r")
    answer(t, "a")
    t.expect("ran after always")
    (given,) = log.calls("Approve")
    assert (given["decision"], given["args"]) == ("always", {"unit": "nginx"})


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_values_left_as_they_are_are_no_edit(terminal: Start, log: Log, term: str) -> None:
    t = terminal(TERM=term).prompt()
    t.type("write a b|c\r")
    answer(t, "e")
    t.expect("path")
    t.skip()
    t.type("\r")
    t.expect("text")
    t.skip()
    t.type("\r")
    t.expect("write (text, above) to ")
    answer(t, "y")
    t.expect("ran after yes")
    assert "args" not in log.calls("Approve")[0]


@pytest.mark.parametrize(("term", "key"), [("xterm", CTRL_C), ("dumb", CTRL_C), ("xterm", CTRL_U + CTRL_D)])
def test_leaving_the_editing_asks_again_with_the_old_values(
    terminal: Start, log: Log, term: str, key: str
) -> None:
    t = terminal(TERM=term, NO_COLOR="1").prompt()
    t.type("write a b\r")
    answer(t, "e")
    t.expect("path")
    t.skip()
    t.type(CTRL_U + "other\r")
    t.expect("text")
    t.skip()
    t.type(key)
    t.expect("write b to a? ")
    answer(t, "n")
    t.expect("refused")
    t.prompt()
    assert [call["decision"] for call in log.calls("Approve")] == ["no"]
    assert not log.calls("Cancel")


def test_ctrl_c_at_the_question_after_an_editing_cancels_the_turn(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("restart nginx\r")
    answer(t, "e")
    t.expect("unit")
    t.skip()
    t.type("x\r")
    t.expect(QUESTION)
    settled()
    t.type(CTRL_C)
    t.expect("interrupted")
    t.prompt().type("say still here\r")
    t.expect("still here\r\n")
    assert not log.calls("Approve")


def test_what_does_not_fit_is_named_and_the_question_stays(terminal: Start, log: Log) -> None:
    t = terminal(NO_COLOR="1").prompt()
    t.type("restart nginx\r")
    answer(t, "e")
    t.expect("unit: ")
    t.type(" x\r")
    t.expect("restart 'nginx x'? ")
    answer(t, "y")
    t.expect("clawsh: unit.restart: unit must match a pattern")
    t.expect("restart 'nginx x'? ")
    answer(t, "e")
    t.expect("unit: ")
    t.type(CTRL_U + "dbus\r")
    t.expect("restart dbus? ")
    answer(t, "y")
    t.expect("ran after yes")
    assert [call.get("args") for call in log.calls("Approve")] == [{"unit": "nginx x"}, {"unit": "dbus"}]


def test_what_was_typed_ahead_in_the_editor_answers_nothing(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("restart nginx\r")
    answer(t, "e")
    t.expect("unit")
    t.skip()
    t.type("x\ry\ry\r")
    t.expect(QUESTION)
    t.stays_silent("ran after", 1.5)
    assert not log.calls("Approve")
    t.type("n\r")
    t.expect("refused")
    t.prompt().type("say done\r")
    t.expect("done\r\n")
    # Nor is it typed at the next prompt.
    assert [call["text"] for call in log.calls("Ask")] == ["restart nginx", "say done"]


def test_a_value_cannot_hide_while_it_is_edited_nor_reach_the_history(
    terminal: Start, log: Log, tmp_path: Path
) -> None:
    t = terminal(NO_COLOR="1").prompt()
    t.type("restart a\u202eb\u200b\r")
    t.expect("restart a\\u202eb\\u200b? ")
    answer(t, "e")
    t.expect("unit: ")
    t.skip()
    since = len(t.seen)
    t.type("\x1b[D" + "secret" + "\r")  # a step to the left: the cursor is where it seems to be
    t.expect(QUESTION)
    settled()
    assert "\u202e".encode() not in t.seen[since:]
    t.type("y\r")
    t.expect("ran after yes")
    assert log.calls("Approve")[0]["args"] == {"unit": "a\u202ebsecret\u200b"}
    assert "secret" not in (tmp_path / ".local/state/clawos/history").read_text()


def test_numbers_stay_numbers(terminal: Start, log: Log) -> None:
    t = terminal(NO_COLOR="1").prompt()
    t.type("wordless\r")
    t.expect("lamp.dim percent=40 slowly=True? ")
    answer(t, "e")
    t.expect("percent: ")
    t.type(CTRL_U + "75\r")
    t.expect("slowly: ")
    t.type(CTRL_U + "false\r")
    answer(t, "y")
    t.expect("ran after yes")
    assert log.calls("Approve")[0]["args"] == {"percent": 75, "slowly": False}


@pytest.mark.parametrize(
    ("text", "before", "value"),
    [
        ("7", "7", "7"),
        ("", "x", ""),
        ("7", 3, 7),
        ("7.5", 3, 7.5),
        ("true", False, True),
        ("NaN", 3, "NaN"),
        ("[1]", 3, "[1]"),
        ("null", 3, "null"),
        ("many", 3, "many"),
        ("[" * 100_000, 3, "[" * 100_000),
    ],
)
def test_what_is_typed_is_of_the_type_that_was_there(text: str, before: Any, value: Any) -> None:
    found = editing._value(text, before)
    assert (found, type(found)) == (value, type(value))


def test_one_request_can_be_edited_while_the_answer_goes_into_a_file(
    log: Log, environment: dict[str, str], tmp_path: Path
) -> None:
    program = f'exec "$0" -m clawos.clawsh -c "restart nginx" > {tmp_path}/answer'
    t = Terminal(["/bin/sh", "-c", program, sys.executable], environment)
    try:
        answer(t, "e")
        t.expect("unit")
        t.skip()
        t.type(CTRL_U + "dbus\r")
        answer(t, "y")
        assert t.exit_code() == 0
    finally:
        t.close()
    assert (tmp_path / "answer").read_text() == "ran after yes\n"
    assert log.calls("Approve")[0]["args"] == {"unit": "dbus"}


def test_interrupts_work_again_after_they_were_set_aside() -> None:
    # A test run in the background of a shell was started with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:
            with pytest.raises(KeyboardInterrupt), interrupts.set_aside():
                signal.raise_signal(signal.SIGINT)
            assert interrupts.take() == 0
            signal.raise_signal(signal.SIGINT)
            assert interrupts.take() == 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
