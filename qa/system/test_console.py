"""What a new user does: first boot, choose a password, log in on the serial console, ask.

This guest gets no credential from us, so it also shows that the image by itself has no harness door.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from qa.conftest import IMAGE
from qa.vm.console import Console
from qa.vm.machine import Channel, Machine, fresh_guest

PASSWORD = "correct horse battery"
PROMPT_S = 240


@pytest.fixture(scope="module")
def fresh() -> Iterator[Machine]:
    with fresh_guest("fresh", IMAGE, harness=False) as made:
        yield made


@pytest.fixture(scope="module")
def console(fresh: Machine) -> Iterator[Console]:
    made = Console(fresh.guest.socket("console.sock"))
    yield made
    made.close()


def log_in(console: Console) -> None:
    console.expect(r"login: ", 60)
    console.type("claw")
    console.expect(r"Password: ", 60)
    console.type(PASSWORD)
    console.expect(r"/help", PROMPT_S)
    console.expect(r"claw@clawos>", 60)


def test_first_boot_asks_for_a_password(console: Console) -> None:
    console.expect(r"Choose a password", 300)
    console.expect(r"Password: ", 60)
    console.type("short")
    console.expect(r"shorter than 8", 60)
    console.expect(r"Password: ", 60)
    console.type(PASSWORD)
    console.expect(r"Once more: ", 60)
    console.type("something else")
    console.expect(r"not the same", 60)
    console.expect(r"Password: ", 60)
    console.type(PASSWORD)
    console.expect(r"Once more: ", 60)
    console.type(PASSWORD)
    assert PASSWORD not in console.expect(r"Log in as", 60)


def test_wrong_password_is_refused(console: Console) -> None:
    console.expect(r"login: ", PROMPT_S)
    console.type("claw")
    console.expect(r"Password: ", 60)
    console.type("wrong password")
    console.expect(r"Login incorrect", 60)


def test_login_leads_to_clawsh_and_an_answer(console: Console) -> None:
    log_in(console)
    console.type("how much memory is free?")
    console.expect(r"memory\.usage", PROMPT_S)
    answer = console.expect(r"\d[\d.]* (GiB|MiB)[^\n]*free", PROMPT_S)
    assert "Traceback" not in answer


def test_there_is_no_harness_door(fresh: Machine) -> None:
    channel = Channel(fresh.guest.socket("harness.sock"))
    try:
        assert not channel.ping(10)
    finally:
        channel.close()


def test_enter_alone_approves_nothing(console: Console) -> None:
    console.type("restart clawos-inference")
    console.expect(r"restart clawos-inference\? \[y\]es \[n\]o \[a\]lways \[e\]dit: ", PROMPT_S)
    time.sleep(3)  # what is typed in the moment after the question is dropped
    console.type("")
    console.expect(r"restart clawos-inference\? .*dit: ", 60)
    console.type("n")
    console.expect(r"refused: this call did not run", 60)


def test_an_edited_call_runs_as_edited_and_is_kept_where_that_is_wanted(console: Console) -> None:
    console.type("/corrections on")
    console.expect(r"never sent anywhere", 60)
    console.type("restart nginx")
    console.expect(r"restart nginx\? .*dit: ", PROMPT_S)
    time.sleep(3)
    console.type("e")
    console.expect(r"unit: nginx", 60)
    console.type("\x15bad name")  # Ctrl-U: what stands there goes
    console.expect(r"restart 'bad name'\? .*dit: ", 60)
    time.sleep(3)
    console.type("y")
    console.expect(r"unit must match pattern", 60)
    console.expect(r"restart 'bad name'\? .*dit: ", 60)
    time.sleep(3)
    console.type("e")
    console.expect(r"unit: bad name", 60)
    console.type("\x15clawos-inference")
    console.expect(r"restart clawos-inference\? .*dit: ", 60)
    time.sleep(3)
    console.type("y")
    console.expect(r"unit\.restart unit=clawos-inference +\(edited\)", 60)
    console.expect(r"Restarted clawos-inference", 120)
    console.expect(r"the correction was kept", 60)
    console.type("/corrections show")
    console.expect(r"was: unit\.restart unit=nginx\s+now: unit\.restart unit=clawos-inference", 60)
    console.type("/history")
    console.expect(r"the user edited this call before it ran", 60)


def test_ctrl_c_ends_the_work_and_not_the_shell(console: Console) -> None:
    console.type("!echo begun $((20+1)); sleep 600")
    console.expect(r"begun 21", PROMPT_S)
    console.type("\x03", enter=False)
    console.expect(r"exit code 130", 60)
    console.type("!echo alive $((6*7))")
    console.expect(r"alive 42", PROMPT_S)


def test_ctrl_d_leaves_to_the_login(console: Console) -> None:
    console.expect(r"claw@clawos>", 60)
    console.type("\x04", enter=False)
    log_in(console)


def test_the_user_of_the_first_boot_is_the_administrator(console: Console) -> None:
    console.type("/rescue")
    console.expect(r"no agent, no sandbox", 60)
    console.type("journalctl -u clawos-agent -o cat | grep -c ready; echo journal=$?")
    console.expect(r"journal=0", 60)
    console.type("journalctl CLAWOS_EDITED=unit -o cat; stat -c 'mode=%a' ~/.local/share/clawos/*")
    console.expect(r"the user edited unit and said yes\s+mode=600\s+mode=600\s", 60)
    console.type("run0 --background= id -u; echo run0-$?")
    console.expect(r"Password: ", 120)
    time.sleep(27)  # who types slowly is waited for
    console.type("wrong password")
    console.expect(r"run0-[1-9]", 120)
    # polkit's agent throws away what was typed between its prompt and its turning the echo off.
    console.type(
        "(until stty -a | grep -q -- ' -echo '; do sleep 0.2; done; echo hidden=$((6*7))) & "
        "run0 --background= sh -c 'echo uid=$(id -u)'"
    )
    console.expect(r"hidden=42", 120)
    console.type(PASSWORD)
    console.expect(r"uid=0\s", 120)
    console.expect(r"\$ ", 60)
    console.type("exit")
    console.expect(r"login: ", 60)
