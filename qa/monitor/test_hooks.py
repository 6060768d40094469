"""Each hook, in each lockdown mode: done in a cgroup that is followed, the act makes exactly that event."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clawos.monitor.kinds import EVERYWHERE, Kind
from qa.monitor.acts import ACTS
from qa.vm.machine import Output

Run = Callable[..., Output]
Told = Mapping[str, Any]

LINKS = "/sys/fs/bpf/clawos/links"
TICK_NS = 10_000_000
EVERYWHERE_WORDS = {kind.word for kind in EVERYWHERE}
each_act = pytest.mark.parametrize("act", ACTS)


@pytest.fixture(scope="session")
def acts(root: Run) -> dict[tuple[str, bool], Told]:
    """All acts, in a cgroup that is followed and outside, by their name and where."""
    program = Path(__file__).with_name("acts.py").read_text()
    done = root(f"cd /; python3 -I - <<'END OF PROGRAM'\n{program}\nEND OF PROGRAM\n", 900)
    assert done.status == 0, done.stderr.decode()
    lines = [json.loads(line) for line in done.text.splitlines()]
    assert lines.pop()["lost"] == {}
    return {(line["act"], line["inside"]): line for line in lines}


def found(told: Told, kind: str, own: Mapping[str, Any]) -> list[dict[str, Any]]:
    events = (event for event in told["events"] if event["kind"] == kind)
    return [event for event in events if all(event[name] == value for name, value in own.items())]


def test_the_programs_are_in_place(root: Run, lockdown: str) -> None:
    assert f"[{lockdown}]" in root("cat /sys/kernel/security/lockdown").text
    shown = root("systemctl show -P ActiveState -P Result clawos-monitor-load").text.split()
    assert set(shown) == {"active", "success"}, root("journalctl -b -u clawos-monitor-load").text


@each_act
def test_exactly_that_event(acts: Mapping[tuple[str, bool], Told], act: str) -> None:
    told = acts[act, True]
    assert "failed" not in told, told
    who = told["who"]
    for kind, own in told["expected"]:
        (event,) = found(told, kind, own) or [told["events"]]
        assert event["call"] == ""
        assert event["cgroup"] == who["cgroup"]
        assert told["before"] <= event["time_ns"] <= told["after"]
        if event["tgid"] == who["tgid"]:
            assert event["pid"] == who["tgid"]
            assert event["ppid"] == who["ppid"]
            assert event["start_ns"] // TICK_NS == who["start_ticks"]
            assert (event["uid"], event["gid"]) == (who["uid"], who["gid"])
            assert event["comm"] == "python3"
        else:
            assert event["ppid"] == who["tgid"]
            assert event["parent_start_ns"] // TICK_NS == who["start_ticks"]


@each_act
def test_outside_only_what_is_rare_is_told(acts: Mapping[tuple[str, bool], Told], act: str) -> None:
    told = acts[act, False]
    assert "failed" not in told, told
    for kind, own in told["expected"]:
        assert len(found(told, kind, own)) == (kind in EVERYWHERE_WORDS), (kind, own)
    assert {event["call"] for event in told["events"]} <= {""}
    assert {event["kind"] for event in told["events"]} <= EVERYWHERE_WORDS


# What was tried and failed, and what looks like it.
NOTHING = {
    "thread_is_no_fork": Kind.FORK,
    "execute_what_is_not_there": Kind.EXEC,
    "kill_asks": Kind.KILL,
    "remove_directory_that_is_full": Kind.UNLINK,
    "mount_that_fails": Kind.MOUNT,
}


@pytest.mark.parametrize("act", NOTHING)
def test_what_failed_is_not_told(acts: Mapping[tuple[str, bool], Told], act: str) -> None:
    assert NOTHING[act].word not in {event["kind"] for event in acts[act, True]["events"]}


def test_what_failed_is_told_once_where_it_succeeded_before(acts: Mapping[tuple[str, bool], Told]) -> None:
    told = acts["open_what_is_not_there", True]
    assert not found(told, "open", {"path": "/tmp/acts/nowhere"})
    for act, kind in (("remove_file", "unlink"), ("create_directory", "create")):
        assert len(
            [e for e in acts[act, True]["events"] if e["kind"] == kind and "gone" in e["path"] + "gone"]
        )


def test_the_environment_is_nobodys_business(acts: Mapping[tuple[str, bool], Told]) -> None:
    for told in acts.values():
        assert "SECRET" not in json.dumps(told["events"])
        assert "of the environment" not in json.dumps(told["events"])


def test_a_second_start_leaves_what_is_there(root: Run) -> None:
    before = root(f"ls -i {LINKS}").text
    assert len(before.split()) > 40
    again = root("python3 -I -m clawos.monitor.load")
    assert again.text == "clawos-monitor-load: all is in place already\n", again.stderr.decode()
    assert root(f"ls -i {LINKS}").text == before
