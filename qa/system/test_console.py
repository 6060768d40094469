"""What a new user does: first boot, choose a password, log in on the serial console, ask.

This guest gets no credential from us, so it also shows that the image by itself has no harness door.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from qa.system.conftest import IMAGE
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
    console.expect(r"This changes something:", PROMPT_S)
    assert "clawos-inference" in console.expect(r"lways in this shell: ", 60)
    time.sleep(3)  # what is typed in the moment after the question is dropped
    console.type("")
    console.expect(r"lways in this shell: ", 60)
    console.type("n")
    console.expect(r"refused: this call did not run", 60)


def settle() -> None:
    """What is typed in the moment after a question is dropped."""
    time.sleep(3)


def test_a_call_is_edited_and_the_correction_kept(console: Console) -> None:
    console.type("/corrections on")
    console.expect(r"are kept; 0 in ", 60)
    console.expect(r"claw@clawos>", 60)
    console.type("make a folder called photos")
    console.expect(r"lways in this shell: ", PROMPT_S)
    settle()
    console.type("e")
    console.expect(r"path = ", 60)
    settle()
    console.type("-2026")
    assert "photos-2026" in console.expect(r"lways in this shell: ", 60)
    settle()
    console.type("y")
    console.expect(r"Made the directory photos-2026", 60)
    console.expect(r"claw@clawos>", 60)
    console.type("/corrections show")
    console.expect(r"was directory\.create path=photos\b(?!-)", 60)
    console.expect(r"is  directory\.create path=photos-2026", 60)
    console.type("what is in photos-2026")
    console.expect(r"total 0", PROMPT_S)


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
    console.type("run0 --background= id -u; echo run0-$?")
    console.expect(r"Password: ", 120)
    console.type("wrong password")
    console.expect(r"run0-[1-9]", 120)
    console.type("run0 --background= sh -c 'echo uid=$(id -u)'")
    console.expect(r"Password: ", 120)
    console.type(PASSWORD)
    console.expect(r"uid=0\s+\$ ", 120)
    console.type("exit")
    console.expect(r"login: ", 60)


def test_settings_and_power_are_changed_by_asking(console: Console, fresh: Machine) -> None:
    log_in(console)
    console.type("set the time zone to vienna")
    console.expect(r"lways in this shell: ", PROMPT_S)
    settle()
    console.type("y")
    console.expect(r"The time zone is Europe/Vienna", 120)
    console.type("rename this machine to falcon")
    console.expect(r"lways in this shell: ", PROMPT_S)
    settle()
    console.type("y")
    console.expect(r"This machine is called falcon", 120)
    console.type("shut down the machine")
    console.expect(r"DANGEROUS", PROMPT_S)
    console.expect(r"lways in this shell: ", 60)
    settle()
    console.type("y")
    console.expect(r"Power down", 300)
    deadline = time.monotonic() + 60
    while fresh.pid is not None and time.monotonic() < deadline:
        time.sleep(1)
    assert fresh.pid is None
    # Both are there after the next boot.
    fresh.start()
    console = Console(fresh.guest.socket("console.sock"))
    try:
        console.expect(r"falcon login: ", 300)
        console.type("claw")
        console.expect(r"Password: ", 60)
        console.type(PASSWORD)
        console.expect(r"claw@falcon>", PROMPT_S)
        console.type("!date +%Z-; cat /etc/timezone; readlink /etc/localtime")
        console.expect(r"Europe/Vienna", PROMPT_S)
    finally:
        console.close()
