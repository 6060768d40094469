"""More than the monitor can take: it neither falls over nor forgets what it did not take."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from qa.detect.follow import CGROUPS, followed_cgroup
from qa.detect.guest import act_is_found, put
from qa.load import share as load
from qa.vm.machine import Machine, Output

Run = Callable[..., Output]

MOUNT = "/mnt"
PLACE = f"{MOUNT}/{load.PLACE}"
BESIDE = f"{CGROUPS}/init.scope"
RSS_MAX_MIB = 64
LOSS_MAX = 0.0005
SECONDS = float(os.environ.get("QA_LOAD_S") or 15)
"""A minute in `make test-full`."""
RATE_WANTED = 100_000
# Emulated processors make some ten thousand events a second in all, and the consumer needs its share.
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
    with followed_cgroup(root, "load") as followed:

        def made(act: str, rate: float, amount: float, threads: int = 2, flag: str = "") -> Offered:
            words = f"{flag} {CGROUPS}{followed} {BESIDE} {act} {rate:g} {amount:g} {threads}"
            program = f"PYTHONPATH={PLACE} python3 -B -m qa.load {PLACE}/offer"
            done = root(f"{program} {words}", 900)
            assert done.status == 0, done.stderr
            told: dict[str, Any] = json.loads(done.text)
            kind = told["kinds"]["fork" if act == "processes" else act]
            return Offered(
                **kind,
                **{name: told[name] for name in ("offered", "seconds", "peak_rss_mib", "same_process")},
            )

        yield made


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
    told = offer("open", 0, STOPPED_S, flag="--stopped")
    assert told.lost > 0, "positive control: the ring was full"
    assert 0 < told.handed <= RING_RECORDS
    assert told.handed + told.lost + told.limited == told.offered
    assert told.same_process


def test_ten_thousand_processes_at_once(offer: Offer) -> None:
    told = offer("processes", 0, PROCESSES, 1)
    # every process of the machine is recorded, not only these
    assert told.handed + told.lost + told.limited >= PROCESSES
    assert told.peak_rss_mib <= RSS_MAX_MIB


@pytest.fixture
def judged(root: Run) -> Iterator[str]:
    """Where acts are done that must be found."""
    with followed_cgroup(root, "qa-judged") as parent:
        yield parent


@pytest.mark.parametrize("jump", ["+3 days", "-3 days"])
def test_a_clock_that_jumps(root: Run, judged: str, jump: str) -> None:
    before = root("date +%s; cut -d . -f 1 /proc/uptime").text.split()
    try:
        assert root(f"date -s '{jump}' && sleep 1").status == 0
        assert act_is_found(root, judged)
    finally:
        root(f"date -s @$(({before[0]} + $(cut -d . -f 1 /proc/uptime) - {before[1]}))")
    assert act_is_found(root, judged)


MALFORMED = {
    "no TOML": ("[[rule]]\nid = ", 2),
    "no text": (r"\377\376", None),
    "unknown field": ('[[rule]]\nid = "qa-x"\nnonsense = 1\n', 1),
    "wrong type": ("\n[[rule]]\nid = 7\n", 2),
    "bad pattern": (
        '[[rule]]\nid = "qa-x"\ntitle = "x"\nseverity = "low"\nattack = []\nkinds = ["exec"]\n'
        'match.path = { regex = "(" }\nmessage = "x"\nreact = ["log"]\n',
        1,
    ),
    "a rule that is there already": (
        '[[rule]]\nid = "accounts-read"\ntitle = "x"\nseverity = "low"\nattack = []\nkinds = ["exec"]\n'
        'message = "x"\nreact = ["log"]\n',
        1,
    ),
}
"""What is wrong with a file, the file, and the first line at which that may be told."""
RELOAD = "busctl call org.clawos.Monitor1 /org/clawos/Monitor1 org.clawos.Monitor1 Reload"
OWN_RULES = "/etc/clawos/detect.d"


@pytest.mark.parametrize("wrong", MALFORMED)
def test_a_malformed_file_of_rules_changes_nothing(root: Run, judged: str, wrong: str) -> None:
    text, line = MALFORMED[wrong]
    rules = root(RELOAD.replace("Reload", "Rules")).text.count("severity")
    assert rules >= 40, "positive control"
    root(f"mkdir -p {OWN_RULES}")
    try:
        if line is None:
            root(f"printf '{text}' >{OWN_RULES}/qa.toml")
        else:
            put(root, f"{OWN_RULES}/qa.toml", text)
        refused = root(f"{RELOAD} 2>&1")
        assert refused.status != 0
        assert f"{OWN_RULES}/qa.toml" in refused.text
        assert line is None or f"line {line}" in refused.text or "line" in refused.text, refused.text
        assert root(RELOAD.replace("Reload", "Rules")).text.count("severity") == rules
        assert act_is_found(root, judged)
    finally:
        root(f"rm -f {OWN_RULES}/qa.toml")
    assert root(RELOAD).status == 0
