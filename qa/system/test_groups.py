"""Groups of calls under real cgroup controllers, by both backends: `claw sandbox run`, --then and --and."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qa.system.test_sandbox import FIND_CGROUPS, assert_nothing_is_left
from qa.vm.machine import Output

pytestmark = pytest.mark.usefixtures("unwatched", "backend")

Run = Callable[..., Output]


@pytest.fixture(autouse=True)
def _nothing_left(root: Run) -> Iterator[None]:
    yield
    assert_nothing_is_left(root)


def line(*words: str) -> str:
    return shlex.join(["claw", "sandbox", "run", *words])


def sh(command: str) -> tuple[str, str]:
    return "shell.run", f"command={command}"


def told(root: Run, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(root(line(*words, "--json"), 200).text)
    return found


def test_output_and_exit_code_are_the_tools(root: Run) -> None:
    done = root(line(*sh("echo out; echo err >&2; exit 7")), 100)
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert root(f"printf words | {line(*sh('tr a-z A-Z'), '--stdin')}").text == "WORDS"


def test_one_tools_output_is_the_next_ones_input(root: Run) -> None:
    done = root(line("unit.list", "--then", *sh("grep clawos-agent"), "--then", *sh("wc -l")), 100)
    assert (done.status, done.stderr) == (0, b"")
    assert int(done.text) == 1


def test_the_first_that_failed_is_named(root: Run) -> None:
    done = root(line(*sh("echo x"), "--then", *sh("cat; exit 3"), "--then", *sh("cat; echo last")), 100)
    assert (done.status, done.text) == (3, "x\nlast\n")
    assert done.stderr == b"claw: shell.run ended with exit code 3\n"


def test_who_wants_no_more_breaks_the_pipe(root: Run) -> None:
    started = time.monotonic()
    done = root(line(*sh("yes"), "--then", *sh("cat"), "--then", *sh("head -n 1")), 100)
    assert (done.status, done.text) == (0, "y\n")
    assert time.monotonic() - started < 60


def test_memory_that_ends_one_ends_the_chain(root: Run) -> None:
    ran = told(root, *sh("echo part; tail /dev/zero"), "--then", *sh("cat >/dev/null; echo took it for all"))
    first, second = (call["result"] for call in ran["calls"])
    assert (first["limit"], second["limit"], ran["failed"]) == ("memory", "chain", 0)
    assert ran["calls"][1]["stdout"] == ""
    group = ran["calls"][0]["id"].rpartition("-")[0]
    events = root(f"journalctl -q -o json CLAWOS_GROUP={group}").text.splitlines()
    limits = {event["CLAWOS_CALL"]: event["CLAWOS_LIMIT"] for event in map(json.loads, events)}
    assert limits == {f"{group}-0": "memory", f"{group}-1": "chain"}


def test_each_has_its_own_cgroup_at_the_same_time(root: Run) -> None:
    """And when claw is killed, all end."""
    words = [word for number in range(3) for word in ("--and", *sh(f"sleep {600 + number}"))]
    root(f"{line(*words[1:])} >/dev/null 2>&1 & echo $! >/run/claw.pid")
    deadline = time.monotonic() + 60
    while len(found := root(FIND_CGROUPS).text.split()) < 3 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert len(found) == 3
    assert len({path.rpartition("-")[0] for path in found}) == 1, "one group"
    assert all(len(root(f"cat {path}/cgroup.procs").text.split()) >= 2 for path in found)
    root("kill -9 $(cat /run/claw.pid); rm /run/claw.pid")


def test_many_chains_at_once_all_end(root: Run) -> None:
    """More than there are places for: some wait, and whom there is no room for is told and tries again."""
    chain = line(*sh("sleep 3; echo done"), "--then", *sh("cat"), "--then", *sh("cat"))
    again = f"until {chain} 2>>/run/said; do grep -q 'wait already' /run/said || exit; sleep 1; done"
    done = root(f": >/run/said; for n in 1 2 3 4 5 6 7 8; do ({again}) & done; wait; rm /run/said", 400)
    assert done.text.split() == ["done"] * 8


def test_what_never_fits_is_told(root: Run) -> None:
    done = root(line(*sh("true"), *["--and", *sh("true")] * 6), 100)
    assert (done.status, done.text) == (125, "")
    assert b"7 calls never run at a time: user_running_max is 6" in done.stderr


def test_only_root_may_run_tools_so(root: Run) -> None:
    done = root("runuser -u claw -- claw sandbox run host.name")
    assert done.status == 125
    assert b"as root" in done.stderr
    assert root("claw sandbox run host.name").status == 0


def test_harm_is_not_done_unasked(root: Run) -> None:
    done = root("claw sandbox run host.name --and power.off")
    assert (done.status, done.text) == (125, "")
    assert b"--yes" in done.stderr
