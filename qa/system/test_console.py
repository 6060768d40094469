"""What a new user does: first boot, choose a password, log in on the serial console, ask.

This guest gets no credential from us, so it also shows that the image by itself has no harness door.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from qa.system.conftest import IMAGE
from qa.vm.console import Console
from qa.vm.machine import Channel, Machine
from qa.vm.qemu import Guest

PASSWORD = "correct horse battery"
PROMPT_S = 240


@pytest.fixture(scope="module")
def fresh() -> Iterator[Machine]:
    directory = Path("build/vm/fresh").absolute()
    Machine(Guest(directory, IMAGE)).stop(timeout_s=1)
    shutil.rmtree(directory, ignore_errors=True)
    machine = Machine(Guest(directory, IMAGE))
    machine.start()
    yield machine
    machine.stop(timeout_s=60)


@pytest.fixture(scope="module")
def console(fresh: Machine) -> Iterator[Console]:
    made = Console(fresh.guest.socket("console.sock"))
    yield made
    made.close()


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
    console.expect(r"login: ", 60)
    console.type("claw")
    console.expect(r"Password: ", 60)
    console.type(PASSWORD)
    console.expect(r"/help", PROMPT_S)
    console.expect(r"claw@clawos>", 60)
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
