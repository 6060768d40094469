"""Judges that others wrote: cepheus looks for ways out, stress-ng abuses system calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from cepheus.engine.analyzer import analyze
from cepheus.models.posture import ContainerPosture
from cepheus.models.result import AnalysisResult

from qa.conftest import tool_calls
from qa.escape.guest import Guest, Run
from qa.escape.test_resources import LONGEST_S
from qa.vm.machine import Channel

ENUMERATE = "sh /usr/local/lib/escape/cepheus-enum.sh"
TECHNIQUES = 75
MATCHED_OUTSIDE = 10
"""At the least: on the appliance's host, as root, it was 26."""

STRESS = "LD_LIBRARY_PATH=/usr/local/lib/stress stress-ng --pathological --metrics-brief -t 15"
# Debian 13's stress-ng has no --sysfuzz; --enosys calls numbers that are none.
ABUSES = ["sysbadaddr", "sysinval", "enosys"]
KERNEL_TROUBLE = "BUG:|Oops|WARNING:|general protection|unable to handle|soft lockup|blocked for more than"


def judged(posture: str) -> AnalysisResult:
    return analyze(ContainerPosture.model_validate(json.loads(posture)))


def test_cepheus_finds_no_way_out(guest: Guest, channel: Channel) -> None:
    """Thousands of short programs: minutes on an emulated machine, so inside and outside run side by side."""
    to_file = "-p StandardOutput=truncate:/run/cepheus.json -p StandardError=null"
    guest.root(f"systemd-run -q --unit=qa-cepheus {to_file} {ENUMERATE}")
    ran = tool_calls(channel, quota="large")("shell.run", command=ENUMERATE)
    assert ran.exit_code == 0, ran
    inside = judged(ran.stdout)
    done = guest.root(
        "while systemctl is-active -q qa-cepheus; do sleep 1; done; cat /run/cepheus.json", 1800
    )
    outside = judged(done.text)
    assert inside.total_techniques_checked >= TECHNIQUES
    assert outside.techniques_matched >= MATCHED_OUTSIDE, "positive control"
    ways = sorted({step.technique.id for chain in inside.chains for step in chain.steps})
    assert (inside.techniques_matched, ways) == (0, [])


@pytest.fixture
def healthy(root: Run) -> Iterator[None]:
    """The kernel and the services come through it unmoved."""
    state = (
        f"journalctl -kq -o cat --grep '{KERNEL_TROUBLE}' | wc -l; cat /proc/sys/kernel/tainted;"
        " systemctl --failed --no-legend; systemctl show -P MainPID clawos-isolator clawos-agent"
    )
    before = root(state).text
    yield
    assert root(state).text == before


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("abuse", ABUSES)
def test_stress_ng_moves_nothing(guest: Guest, abuse: str) -> None:
    preload = "LD_PRELOAD=/usr/local/lib/stress/stand_in.so"
    with guest.heartbeat() as pulse:
        ran = guest.inside(f"cd /tmp && {preload} {STRESS} --{abuse} 2 2>&1 | tail -n 40")
    assert bogo_ops(abuse, ran.stdout) > 0, f"it tried nothing: {ran}"
    assert pulse.longest_s < LONGEST_S, pulse


@pytest.mark.parametrize("abuse", ABUSES)
def test_stress_ng_tries_as_much_outside(guest: Guest, abuse: str) -> None:
    """The control: as nobody, for as root it is meant to bring the machine down."""
    limits = "-p User=nobody -p TasksMax=128 -p MemoryMax=384M -p RuntimeMaxSec=120"
    limits += " -p PrivateTmp=yes -p PrivateIPC=yes"
    done = guest.root(f"systemd-run -q --pipe --wait {limits} sh -c 'cd /tmp && {STRESS} --{abuse} 2' 2>&1")
    assert bogo_ops(abuse, done.text) > 0, done.text


def bogo_ops(abuse: str, text: str) -> int:
    found = re.search(rf"metrc:.* {abuse} +(\d+) ", text)
    return int(found[1]) if found else 0


def test_trouble_of_the_kernel_is_seen(root: Run) -> None:
    """The control of `healthy`."""
    count = f"journalctl -kq -o cat --grep '{KERNEL_TROUBLE}' | wc -l"
    before = int(root(count).text)
    root("echo 'a test of BUG: no such thing' >/dev/kmsg; sleep 1; journalctl --sync")
    assert int(root(count).text) == before + 1
