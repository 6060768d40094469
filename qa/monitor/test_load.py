"""More than the monitor can take: it neither falls over nor forgets what it did not take."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from qa.detect.guest import act_is_found, followed_cgroup
from qa.monitor.load import share as load
from qa.vm.machine import Machine, Output

Run = Callable[..., Output]

MOUNT = "/mnt"
PLACE = f"{MOUNT}/{load.PLACE}"
BESIDE = "/sys/fs/cgroup/init.scope"
RSS_MAX_MIB = 64
LOSS_MAX = 0.0005
SECONDS = float(os.environ.get("QA_LOAD_S") or 15)
"""A minute in `make test-full`."""
RATE_WANTED = 100_000
# An emulated processor makes some ten thousand events a second in all, and the consumer needs its share of it.
RATE_EMULATED = 2_000
STOPPED_S = 10
PROCESSES = 10_000
RING_RECORDS = (8 << 20) // 128
"""More than this many records of any kind do not fit into the ring."""


@dataclass(frozen=True)
class Offered:
    """What was offered, and the kernel side's account of it."""

    offered: int
    seconds: float
    handed: int
    lost: int
    limited: int
    peak_rss_mib: float
    same_process: bool

    @property
    def per_s(self) -> float:
        return self.offered / self.seconds


Offer = Callable[..., Offered]


@pytest.fixture(scope="module")
def offer(root: Run) -> Iterator[Offer]:
    assert root(f"mountpoint -q {MOUNT} || mount /dev/disk/by-label/share {MOUNT}").status == 0
    with followed_cgroup(root, "qa-load") as followed:

        def made(act: str, rate: float, amount: float, threads: int = 2, *flags: str) -> Offered:
            words = f"{PLACE}/offer {followed} {BESIDE} {act} {rate:g} {amount:g} {threads} {' '.join(flags)}"
            done = root(f"PYTHONPATH={PLACE} python3 -B -m qa.monitor.load {words}", 900)
            assert done.status == 0, done.stderr
            told: dict[str, Any] = json.loads(done.text)
            kind = told["kinds"]["fork" if act == "processes" else act]
            return Offered(
                told["offered"], told["seconds"], **kind, peak_rss_mib=told["peak_rss_mib"], same_process=told["same_process"]
            )

        yield made
    root(f"umount {MOUNT}")


@pytest.fixture(autouse=True)
def _alive(root: Run, offer: Offer) -> Iterator[None]:
    """The consumer outlives every test here, as the same process, and small."""
    pid = root("systemctl show -P MainPID clawos-monitor").text
    yield
    assert root("systemctl show -P MainPID clawos-monitor").text == pid
    assert root("systemctl show -P NRestarts clawos-monitor").text == "0\n"
    offered = offer("open", 100, 1, 1)
    assert offered.handed == offered.offered, "it still takes what comes"
    assert offered.peak_rss_mib <= RSS_MAX_MIB


def test_at_a_rate_that_it_holds_next_to_nothing_is_lost(offer: Offer, machine: Machine) -> None:
    """On hardware the rate that is wanted; under emulation what that can make at all."""
    rate = RATE_WANTED if machine.kvm else RATE_EMULATED
    told = offer("open", rate, SECONDS)
    assert told.per_s > 0.9 * rate, "positive control"
    assert told.handed + told.lost + told.limited == told.offered
    assert (told.lost + told.limited) / told.offered <= LOSS_MAX


@pytest.mark.parametrize("act", ["open", "socket"])
def test_flat_out_every_event_is_handed_over_or_counted(offer: Offer, act: str) -> None:
    told = offer(act, 0, SECONDS)
    assert told.offered > RING_RECORDS, "positive control: more than the ring holds"
    assert told.handed + told.lost + told.limited == told.offered


def test_while_the_consumer_stands_still_the_ring_fills_and_the_rest_is_counted(offer: Offer) -> None:
    told = offer("open", 0, STOPPED_S, 2, "--stopped")
    assert told.lost > 0, "positive control: the ring was full"
    assert 0 < told.handed <= RING_RECORDS
    assert told.handed + told.lost + told.limited == told.offered
    assert told.same_process


def test_ten_thousand_processes_at_once(offer: Offer) -> None:
    told = offer("processes", 0, PROCESSES, 1)
    # every process of the machine is recorded, not only these
    assert told.handed + told.lost + told.limited >= PROCESSES
    assert told.peak_rss_mib <= RSS_MAX_MIB


@pytest.mark.parametrize("jump", ["+3 days", "-3 days"])
def test_a_clock_that_jumps(root: Run, jump: str) -> None:
    before = root("date +%s.%N; cat /proc/uptime").text.split()
    try:
        assert root(f"date -s '{jump}' && sleep 1").status == 0
        assert act_is_found(root), "it still judges"
    finally:
        since = float(root("cat /proc/uptime").text.split()[0]) - float(before[1])
        root(f"date -s @{float(before[0]) + since}")
    assert act_is_found(root)


MALFORMED = {
    "no-toml": "[[rule]\nname = ",
    "no-text": "\\377\\376\\000\\001",
    "unknown-field": '[[rule]]\nname = "x"\nnonsense = 1\n',
    "wrong-type": "[[rule]]\nname = 7\n",
    "bad-pattern": '[[rule]]\nname = "x"\nmatch = { path = { regex = "(" } }\n',
    "huge": "# " + "x" * 200 + "\n",
}
