"""A person at a terminal: prompts, approvals, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clawsh.conftest import Log
from clawsh.terminal import QUESTION, Terminal, settled

Start = Callable[..., Terminal]
CTRL_C, CTRL_D, TAB = "\x03", "\x04", "\t"


@pytest.mark.parametrize("term", ["xterm", "vt220", "linux", "dumb"])
def test_greets_answers_and_leaves_on_ctrl_d(terminal: Start, log: Log, term: str) -> None:
    t = terminal(TERM=term)
    t.expect("ClawOS ")
    t.expect("/help")
    t.prompt().type("how much memory is free?\r")
    t.expect("* ")
    t.expect("memory.usage")
    t.expect("free  20.9 GB")
    t.prompt().type(CTRL_D)
    assert t.exit_code() == 0


@pytest.mark.parametrize(("arguments", "name"), [([], "default"), (["--session", "work"], "work")])
def test_continues_a_session(terminal: Start, log: Log, arguments: list[str], name: str) -> None:
    t = terminal(*arguments).prompt()
    t.type("say hi\r")
    t.expect("hi\r\n")
    assert [(call["name"], call["fresh"]) for call in log.calls("OpenSession")] == [(name, False)]


def test_never_asks_the_terminal_a_question(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("say hi\r")
    t.expect("hi\r\n")
    t.prompt().type(CTRL_D)
    t.exit_code()
    for question in (b"\x1b[6n", b"\x1b[c", b"\x1b[>c", b"\x1b[5n"):
        assert question not in t.seen


def test_a_dumb_terminal_gets_no_escape_sequence(terminal: Start, log: Log) -> None:
    t = terminal(TERM="dumb").prompt()
    t.type("restart nginx\n")
    t.expect(QUESTION)
    settled()
    t.type("n\n")
    t.prompt().type("evil\n")
    t.prompt().type(CTRL_D)
    assert t.exit_code() == 0
    assert b"\x1b" not in t.seen


def test_no_color_means_no_colour(terminal: Start, log: Log) -> None:
    t = terminal("-c", "broken", NO_COLOR="1")
    assert t.exit_code() == 1
    assert b"\x1b[3" not in t.seen


@pytest.mark.parametrize(
    ("answer", "decision"), [("y", "yes"), ("yes", "yes"), ("n", "no"), ("a", "always"), ("Y", "yes")]
)
def test_asks_before_a_cautious_call(terminal: Start, log: Log, answer: str, decision: str) -> None:
    t = terminal().prompt()
    t.type("restart nginx\r")
    t.expect("restart \x1b[1mnginx\x1b[0m? [y]es [n]o [a]lways ")
    t.expect(QUESTION)
    settled()
    t.type(f"{answer}\r")
    t.expect("refused" if decision == "no" else f"ran after {decision}")
    assert [call["decision"] for call in log.calls("Approve")] == [decision]


def test_enter_alone_and_other_words_approve_nothing(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("restart nginx\r")
    for useless in ("\r", "\r", "sure\r", "ye\r"):
        t.expect(QUESTION)
        settled()
        t.type(useless)
        t.expect("y runs it, n does not, e edits it first,\r\n")
        t.expect("asks no more for unit.restart in this shell")
    t.expect(QUESTION)
    assert not log.calls("Approve")
    t.type("n\r")
    t.expect("refused")
    assert [call["decision"] for call in log.calls("Approve")] == ["no"]


def test_what_was_typed_before_the_question_does_not_count(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("delete /home/x\r")
    t.expect("thinking")
    t.type("y\ry\ra\r")
    t.expect("DANGEROUS")
    t.expect(QUESTION)
    t.type("y\r")  # a finger that was on its way
    t.stays_silent("ran after", 1.5)
    assert not log.calls("Approve")
    t.type("n\r")
    t.expect("refused")


@pytest.mark.parametrize(("key", "what"), [(CTRL_D, "refused"), (CTRL_C, "interrupted")])
def test_leaving_a_question_approves_nothing(terminal: Start, log: Log, key: str, what: str) -> None:
    t = terminal().prompt()
    t.type("restart nginx\r")
    t.expect(QUESTION)
    settled()
    t.type(key)
    t.expect(what)
    t.prompt()
    assert not [call for call in log.calls("Approve") if call["decision"] != "no"]


def test_the_question_shows_what_a_terminal_would_hide(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("restart a\u202eb\u0430\r")
    t.expect("U+0430")
    t.expect("restart \x1b[1ma\\u202eb\u0430\x1b[0m? ")


def test_ctrl_c_cancels_the_work_and_not_the_shell(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    for line, member in (("slow\r", "Ask"), ("!sleep 60\r", "Exec")):
        before = len(log.calls("Cancel"))
        calls = len(log.calls(member))
        t.type(line)
        while len(log.calls(member)) == calls:
            time.sleep(0.05)
        t.skip()
        t.type(CTRL_C)
        t.prompt()
        assert len(log.calls("Cancel")) == before + 1
    t.type("say still here\r")
    t.expect("still here\r\n")


def test_a_second_ctrl_c_hangs_up_on_an_agent_that_does_not_listen(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("stuck\r")
    t.expect("thinking")
    time.sleep(0.3)
    t.type(CTRL_C)
    time.sleep(0.5)
    t.type(CTRL_C)
    t.expect("interrupted", timeout_s=4)
    t.prompt()


def test_ctrl_c_at_the_prompt_gives_a_new_one(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type(CTRL_C)
    t.prompt().type("say half" + CTRL_C)
    t.prompt().type("say whole\r")
    assert [call["text"] for call in log.wait_for("Ask")] == ["say whole"]


def test_ctrl_c_on_a_dumb_terminal_gives_a_new_prompt(terminal: Start, log: Log) -> None:
    t = terminal(TERM="dumb").prompt()
    t.type("half" + CTRL_C)
    t.prompt().type("say whole\n")
    t.expect("whole\r\n")


def test_one_request_at_a_terminal_can_be_approved_and_interrupted(terminal: Start, log: Log) -> None:
    t = terminal("-c", "restart nginx")
    t.expect(QUESTION)
    settled()
    t.type("y\r")
    assert t.exit_code() == 0
    t = terminal("-c", "slow")
    t.expect("partial")
    t.type(CTRL_C)
    assert t.exit_code() == 130


def test_a_paste_is_not_submitted(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    assert b"\x1b[?2004h" in t.seen
    t.type("\x1b[200~say one\nsay two\n\x1b[201~")
    time.sleep(1)
    assert not log.calls("Ask")
    t.type("\r")
    t.expect("say two")
    deadline = time.monotonic() + 20
    while not log.calls("Ask") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [call["text"] for call in log.calls("Ask")] == ["say one\nsay two"]


def test_output_is_cleaned_before_the_terminal_sees_it(terminal: Start, log: Log) -> None:
    t = terminal(NO_COLOR="1").prompt()
    t.type("evil\r")
    t.expect("redbcde\r\nf\r\n")
    t.prompt().type("!printf 'A\\033]0;title\\007\\033[31mB\\n'\r")
    t.expect("AB\r\n")
    assert b"\x1b]" not in t.seen
    assert "\u202e".encode() not in t.seen


def test_the_sandbox_gets_no_terminal_but_what_is_typed(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("!cat\r")
    deadline = time.monotonic() + 20
    while not log.calls("Exec") and time.monotonic() < deadline:
        time.sleep(0.05)
    t.type("typed\r")
    t.expect("typed\r\n")
    t.expect("typed\r\n")
    t.type(CTRL_D)
    t.prompt()
    assert log.calls("Exec")[0]["stdin_is_terminal"] is False


def test_long_output_is_cut_and_can_be_had_in_full(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("long\r")
    t.expect("line 39\r\n")
    assert "line 40" not in t.expect("60 more lines")
    t.prompt().type("/output\r")
    t.expect("line 99")


def test_tab_completes(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("/to" + TAB)
    t.expect("ols")
    t.type(" unit.r" + TAB)
    t.expect("estart")
    t.type("\r")
    t.expect("name of a systemd unit")


@pytest.mark.parametrize("word", ["/quit", "exit", "quit", "logout"])
def test_words_that_leave(terminal: Start, log: Log, word: str) -> None:
    t = terminal().prompt()
    t.type(f"{word}\r")
    assert t.exit_code() == 0
    assert not log.calls("Ask")


def test_what_was_typed_is_kept_for_the_next_time(terminal: Start, log: Log, tmp_path: Path) -> None:
    t = terminal().prompt()
    t.type("say remembered\r")
    t.expect("remembered\r\n")
    t.prompt().type(" say secret\r")
    t.expect("secret\r\n")  # the line editor paints its prompt again on Enter: that one is not the next
    t.prompt().type(CTRL_D)
    t.exit_code()
    history = tmp_path / ".local/state/clawos/history"
    assert history.read_text() == "say remembered\n"
    assert history.stat().st_mode & 0o777 == 0o600
    t = terminal().prompt()
    t.type("\x1b[A\r")
    t.expect("remembered\r\n")


def test_help_history_and_tools_cost_no_turn(terminal: Start, log: Log) -> None:
    t = terminal().prompt()
    t.type("help\r")
    t.expect("/plan TEXT")
    t.prompt().type("/tools\r")
    t.expect("Restart a service.")
    t.prompt().type("/history\r")
    t.expect("agent calls memory.usage")
    t.prompt().type("/plan restart nginx\r")
    t.expect("unit=nginx")
    assert [call["plan"] for call in log.calls("Ask")] == [True]


def test_a_lost_terminal_ends_the_shell(terminal: Start, log: Log) -> None:
    t = terminal(TERM="dumb").prompt()
    t.type("slow\n")
    t.expect("partial")
    t.hang_up()
    assert t.exit_code() < 0
    deadline = time.monotonic() + 20
    while not log.calls("reader gone") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.calls("reader gone")
