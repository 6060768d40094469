"""The image boots and answers in the other two lockdown modes as well."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qa.system.conftest import IMAGE
from qa.vm.machine import Machine, harness_credentials
from qa.vm.qemu import Guest


@pytest.mark.parametrize("mode", ["none", "confidentiality"])
def test_lockdown_mode(mode: str) -> None:
    directory = Path(f"build/vm/test-{mode}").absolute()
    Machine(Guest(directory, IMAGE)).stop(timeout_s=1)
    shutil.rmtree(directory, ignore_errors=True)
    credentials = harness_credentials() | {"passwd.hashed-password.claw": b"!*"}
    machine = Machine(Guest(directory, IMAGE, credentials, lockdown=mode))
    machine.start()
    channel = None
    try:
        channel = machine.wait_for_channel()
        channel.run("systemctl is-system-running --wait", 300)
        assert f"[{mode}]" in channel.run("cat /sys/kernel/security/lockdown").text
        assert channel.run("systemctl --failed --no-legend").text == ""
        done = channel.run("su -l claw -c 'how much memory is free?'", 300)
        assert done.status == 0, done.stderr
        assert "free" in done.text
    finally:
        machine.stop(channel)
