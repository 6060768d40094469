"""The image boots and answers in the other two lockdown modes as well."""

from __future__ import annotations

import pytest

from qa.conftest import IMAGE
from qa.vm.machine import fresh_guest


@pytest.mark.parametrize("mode", ["none", "confidentiality"])
def test_lockdown_mode(mode: str) -> None:
    with fresh_guest(f"test-{mode}", IMAGE, lockdown=mode) as machine:
        channel = machine.wait_for_channel()
        channel.run("systemctl is-system-running --wait", 300)
        assert f"[{mode}]" in channel.run("cat /sys/kernel/security/lockdown").text
        assert channel.run("systemctl --failed --no-legend").text == ""
        done = channel.run("su -l claw -c 'how much memory is free?'", 300)
        assert done.status == 0, done.stderr
        assert "free" in done.text
