"""Ending and restarting the machine by its tools, and what outlasts that. On a guest of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from qa.conftest import IMAGE, tool_calls
from qa.vm.machine import Channel, Machine, fresh_guest

ENDS_IN_S = 240


@pytest.fixture(scope="module")
def guest() -> Iterator[Machine]:
    with fresh_guest("power", IMAGE) as made:
        yield made


def booted(guest: Machine) -> Channel:
    channel = guest.wait_for_channel()
    channel.run("systemctl is-system-running --wait", 300)
    return channel


def wait_for_the_end(guest: Machine) -> None:
    """QEMU ends with the machine, also where that would boot again (-no-reboot)."""
    deadline = time.monotonic() + ENDS_IN_S
    while guest.pid is not None:
        assert time.monotonic() < deadline, guest.console_text()[-2000:]
        time.sleep(1)


def test_restart_keeps_name_and_time_zone(guest: Machine) -> None:
    channel = booted(guest)
    call = tool_calls(channel)
    assert call("host.rename", host="media-box").outcome == (0, "")
    assert call("time.zone.set", zone="Europe/Vienna").outcome == (0, "")
    boot = channel.run("cat /proc/sys/kernel/random/boot_id").text
    ran = call("power.restart")
    assert ran.outcome == (0, ""), "the answer arrives before the end"
    assert ran.stdout == "The machine restarts in a few seconds.\n"
    wait_for_the_end(guest)
    channel.close()

    guest.start()
    channel = booted(guest)
    assert channel.run("cat /proc/sys/kernel/random/boot_id").text != boot
    assert "The system will reboot now!" in channel.run("journalctl -b -1 -u systemd-logind -o cat").text
    assert channel.run("cat /etc/hostname /proc/sys/kernel/hostname").text == "media-box\nmedia-box\n"
    assert channel.run("timedatectl show -P Timezone").text == "Europe/Vienna\n"
    assert channel.run("systemctl --failed --no-legend").text == ""
    call = tool_calls(channel)
    assert call("host.name").stdout == "This machine is called media-box.\n"
    assert call("time.now").stdout.split()[-1] in ("CET", "CEST")
    channel.close()


def test_power_off(guest: Machine) -> None:
    channel = booted(guest)
    ran = tool_calls(channel)("power.off")
    assert ran.outcome == (0, "")
    assert ran.stdout == "The machine shuts down in a few seconds.\n"
    wait_for_the_end(guest)
    channel.close()
    assert "reboot: Power down" in guest.console_text(), "the kernel's last word"
