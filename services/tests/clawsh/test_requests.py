"""`clawsh -c`, pipes and files: what comes out where, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from clawsh.conftest import CLAWSH, Log, Run
from clawsh.fakes import EVIL, MEMORY

from clawos.clawsh import exit_codes


def test_a_tools_output_is_the_answer_when_the_model_says_nothing(clawsh: Run, log: Log) -> None:
    done = clawsh("-c", "how much memory is free?")
    assert (done.returncode, done.stdout.decode()) == (0, MEMORY)
    assert "* memory.usage" in done.stderr.decode()
    assert log.calls("Ask")[0]["interactive"] is False


def test_the_models_words_are_the_answer_when_it_says_any(clawsh: Run, log: Log) -> None:
    done = clawsh("-c", "both")
    assert done.stdout == b"You have 20.9 GB.\n"
    assert MEMORY.splitlines()[0] in done.stderr.decode()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("say hello", exit_codes.DONE),
        ("broken", exit_codes.FAILED),
        ("model", exit_codes.FAILED),
        ("crash", exit_codes.FAILED),
        ("junk", exit_codes.FAILED),
        ("busy", exit_codes.FAILED),
        ("bad", exit_codes.FAILED),
        ("end refused", exit_codes.REFUSED),
        ("restart nginx", exit_codes.APPROVAL_NEEDED),
        ("end timed_out", exit_codes.TIMED_OUT),
        ("end interrupted", exit_codes.INTERRUPTED),
        ("!true", 0),
        ("!exit 7", 7),
        ("!exit 255", 255),
        ("!kill -9 $$", 137),
        ("!kill -TERM $$", 143),
        ("!", exit_codes.USAGE),
        ("/tools", 0),
        ("/nonsense", exit_codes.FAILED),
        ("/plan", exit_codes.FAILED),
        ("", 0),
        ("exit", 0),
    ],
)
def test_exit_codes(clawsh: Run, log: Log, text: str, code: int) -> None:
    assert clawsh("-c", text).returncode == code


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c"],
        ["--nonsense"],
        ["-x"],
        ["one", "two"],
        ["-c", "one", "two"],
        ["/no/such/file"],
        ["--yes"],
        ["--session"],
        ["--session", "", "-c", "one"],
        ["--session=a b", "-c", "one"],
        ["--session", "x" * 65, "-c", "one"],
        ["--session", "-c", "one"],
    ],
)
def test_wrong_usage_is_2_and_says_what_to_do(clawsh: Run, arguments: list[str]) -> None:
    done = clawsh(*arguments)
    assert done.returncode == exit_codes.USAGE
    assert done.stdout == b""
    assert len(done.stderr.decode().splitlines()) == 2


def test_help_and_version(clawsh: Run) -> None:
    assert b"exit codes:" in clawsh("--help").stdout
    assert clawsh("--version").stdout.startswith(b"clawsh ")


def test_a_command_is_byte_clean_both_ways(clawsh: Run, log: Log) -> None:
    data = bytes(range(256)) * 1000
    done = clawsh("-c", "!cat; printf 'a\\033b' >&2", stdin=data)
    assert (done.stdout, done.stderr) == (data, b"a\x1bb")
    assert log.calls("Exec")[0]["command"] == "cat; printf 'a\\033b' >&2"


def test_big_output_arrives_whole(clawsh: Run, log: Log) -> None:
    done = clawsh("-c", "!head -c 5000000 /dev/zero; echo end >&2")
    assert (len(done.stdout), done.stderr) == (5_000_000, b"end\n")


def test_text_is_byte_clean_when_nobody_looks(clawsh: Run, log: Log) -> None:
    assert clawsh("-c", "evil").stdout == EVIL.encode()


def test_each_piped_line_is_a_request_and_the_first_failure_is_the_exit_code(clawsh: Run, log: Log) -> None:
    lines = b"# a comment\nsay one\n\nbroken\n!echo two; cat\nend timed_out\nsay three"
    done = clawsh(stdin=lines)
    assert done.stdout == b"one\ntwo\nthree\n"
    assert done.returncode == exit_codes.FAILED
    assert len({call["session"] for call in log.calls("Ask")}) == 1


def test_quit_ends_a_script(clawsh: Run, log: Log) -> None:
    assert clawsh(stdin=b"say one\nquit\nsay two\n").stdout == b"one\n"


def test_a_file_is_a_script_and_stdin_is_the_commands(clawsh: Run, log: Log, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/clawsh\nsay one\n!cat\n")
    assert clawsh(str(script), stdin=b"two\n").stdout == b"one\ntwo\n"


def test_plan_prints_the_calls_and_asks_the_agent_to_run_nothing(clawsh: Run, log: Log) -> None:
    done = clawsh("--plan", "-c", "restart nginx")
    assert (done.returncode, done.stdout) == (0, b"* unit.restart unit=nginx  (cautious)\n")
    assert log.calls("Ask")[0]["plan"] is True
    assert clawsh("--plan", "-c", "!touch /x").stdout == b"would run in the sandbox: touch /x\n"
    assert not log.calls("Exec")


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("both", ["tool_call", "tool_result", "text"]),
        ("restart nginx", ["tool_call", "approval_required"]),
        ("model", ["error"]),
        ("busy", ["error"]),
        ("evil", ["text", "text"]),
        ("!echo hi; exit 3", ["tool_call", "tool_result"]),
        ("/tools", ["text"]),
        ("junk", ["error"]),
    ],
)
def test_json_is_one_event_a_line_in_ascii(clawsh: Run, log: Log, text: str, types: list[str]) -> None:
    done = clawsh("--json", "-c", text)
    events = [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]
    assert [event["type"] for event in events] == types
    assert done.stderr == b""
    assert done.returncode == clawsh("-c", text).returncode


def test_a_reader_that_goes_away_ends_the_work(clawsh: Run, log: Log, environment: dict[str, str]) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*CLAWSH, "-c", "!yes"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert os.read(reading, 2) == b"y\n"
    os.close(reading)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (exit_codes.READER_GONE, b"")


def test_two_at_once_have_sessions_of_their_own(environment: dict[str, str], log: Log) -> None:
    both = [
        subprocess.Popen([*CLAWSH, "-c", "!sleep 1"], env=environment, stdin=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(30) for process in both] == [0, 0]
    assert {call["name"] for call in log.calls("OpenSession")} == {"command-1", "command-2"}


def test_a_session_that_the_agent_forgot_is_opened_again(clawsh: Run, log: Log) -> None:
    done = clawsh(stdin=b"say one\nrestarted\n")
    assert done.returncode == 0
    assert len(log.calls("OpenSession")) == 2


@pytest.mark.parametrize(
    ("arguments", "name", "fresh"),
    [
        (["-c", "say one"], "command-1", True),
        (["-c", "!true"], "command-1", False),
        (["-c", "/history"], "default", False),
        (["-c", " /history "], "default", False),
        (["-c", "/history-of-linux"], None, None),
        (["--session", "default", "-c", "say one"], "default", False),
        (["--session=work", "-c", "!true"], "work", False),
        (["--session", "work", "-c", "/history"], "work", False),
    ],
)
def test_which_session_a_request_is_of(
    clawsh: Run, log: Log, arguments: list[str], name: str | None, fresh: bool | None
) -> None:
    assert clawsh(*arguments).returncode == (exit_codes.FAILED if name is None else exit_codes.DONE)
    opened = [(call["name"], call["fresh"]) for call in log.calls("OpenSession")]
    assert opened == ([] if name is None else [(name, fresh)])


def test_a_script_can_continue_a_session(clawsh: Run, log: Log) -> None:
    assert clawsh("--session", "work", stdin=b"say one\n/history\n").returncode == 0
    assert [(call["name"], call["fresh"]) for call in log.calls("OpenSession")] == [("work", False)]


def test_history_shows_what_was_said(clawsh: Run, log: Log) -> None:
    shown = clawsh("-c", "/history").stdout.decode()
    assert shown.startswith("you: how much memory is free?\nagent calls memory.usage\n")


def test_works_without_a_home(clawsh: Run, log: Log) -> None:
    assert clawsh("-c", "!echo hi", HOME="/proc/nowhere").stdout == b"hi\n"


def test_a_trace_shows_what_a_call_did(clawsh: Run, log: Log) -> None:
    shown = clawsh("-c", "/trace").stdout.decode()
    assert shown.splitlines() == [
        "shell.run (c0ffee), 2026-11-21T12:00:00.000000Z",
        "  ran       sh -c cat a\\x1b[31m",
        "  read      /home/u/a",
        "  read      30 files of the system",
        "  wrote     /home/u/b",
        "  network   connected to 198.19.255.1 port 8118",
        "  alert     high: it did",
        f"            low: {'x' * 194}…",
        "  It did more than is kept.",
    ]
    assert clawsh("-c", "/trace last").stdout.decode() == shown
    assert clawsh("-c", "/trace c0ffee").stdout.decode() == shown


def test_a_trace_of_a_call_that_is_not_known(clawsh: Run, log: Log) -> None:
    failed = clawsh("-c", "/trace beef")
    assert failed.returncode == 1
    assert b"you have no call" in failed.stderr
