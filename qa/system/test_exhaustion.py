"""What a sandbox is made of runs out or is taken away: calls are refused by name, and work again after."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qa.conftest import Call, Ran
from qa.system.test_sandbox import CGROUP, assert_nothing_is_left
from qa.vm.machine import Output

pytestmark = pytest.mark.usefixtures("unwatched")

Run = Callable[..., Output]

REFUSED = "org.clawos.Error.SandboxRefused"
BUSY = "org.clawos.Error.Busy"
PID = "$(systemctl show -P MainPID clawos-isolator)"
LAUNCHER = f"$(pgrep -x claw-launch -P {PID})"
SPAWNER = f"$(pgrep -x claw-launch -P {LAUNCHER})"
FILLER = f"$(pgrep -o -P {SPAWNER})"
HOMES = "/var/lib/clawos/isolator/home"
# But for the roots that are kept.
DESCRIPTORS = f"for pid in {PID} {SPAWNER}; do ls -l /proc/$pid/fd; done | grep -v mnt: | wc -l"
STORM = Path(__file__).parents[1].joinpath("vm", "storm.py").read_text()


def works(call: Call) -> bool:
    ran = call("memory.usage")
    return ran.exit_code == 0 and ran.stdout != ""


@pytest.fixture(autouse=True)
def _as_before(root: Run, call: Call, backend: str) -> Iterator[None]:
    """The control, on both sides: without the fault the same call works; and nothing is left over."""
    assert works(call)
    before = root(f"echo {PID}; {DESCRIPTORS}").text.split()
    yield
    assert works(call)
    assert_nothing_is_left(root)
    after = root(f"echo {PID}; {DESCRIPTORS}").text.split()
    assert after[0] != before[0] or int(after[1]) <= int(before[1]), "descriptors were lost"


def named(ran: Ran, words: str) -> bool:
    return ran.refused.startswith(REFUSED) and words in ran.refused


def restart(root: Run) -> Output:
    return root("systemctl reset-failed clawos-isolator; systemctl restart clawos-isolator")


def test_without_controllers_the_service_does_not_start(root: Run, call: Call) -> None:
    """In a slice that hands all others on; systemd gives a unit of system.slice what it needs."""
    units = "/run/systemd/system"
    dropin = f"{units}/clawos-isolator.service.d"
    root(
        f"printf '[Slice]\\nDisableControllers=cpu memory pids\\n' >{units}/fault.slice;"
        f"mkdir -p {dropin}; printf '[Service]\\nRestart=no\\nSlice=fault.slice\\n' >{dropin}/fault.conf;"
        "systemctl daemon-reload"
    )
    try:
        assert restart(root).status != 0
        words = "the controllers cpu, memory, pids are not delegated"
        assert words in root("journalctl -b -q -u clawos-isolator -n 30").text
        ran = call("memory.usage")
        assert ran.refused
        assert ran.exit_code is None
        root(f"printf '[Slice]\\n' >{units}/fault.slice; systemctl daemon-reload")
        assert restart(root).status == 0, "the control: it is not the slice"
        assert works(call)
    finally:
        root(
            f"rm {units}/fault.slice {dropin}/fault.conf; systemctl daemon-reload;"
            "systemctl stop clawos-isolator fault.slice"
        )
        assert restart(root).status == 0


@pytest.mark.parametrize("controller", ["pids", "memory", "cpu"])
def test_a_controller_that_goes_away_means_no_call(root: Run, call: Call, controller: str) -> None:
    control = f"{CGROUP}/cgroup.subtree_control"
    assert root(f"echo -{controller} >{control}").status == 0
    try:
        assert named(call("memory.usage"), "set up: cgroup:")
    finally:
        root(f"echo +{controller} >{control}")


# Who makes processes, in this order, where nothing is made ahead.
MAKERS = {
    "launcher": ("launcher", "namespaces", "proc", "root", "fork"),
    "bubblewrap": ("bubblewrap", "namespaces"),
}


def processes(root: Run) -> int:
    """How many there are, once none is left that has ended: those count, too, until they are reaped."""
    threads = f"$(find {CGROUP} -name cgroup.threads -exec cat {{}} + | wc -l)"
    counted = f"now=$(cat {CGROUP}/pids.current)"
    return int(root(f"until {counted}; [ $now = {threads} ]; do sleep 0.1; done; echo $now").text)


def test_a_full_table_of_processes_is_named(root: Run, call: Call, backend: str) -> None:
    """One more each time, so that it ends at each step; with enough of them the call runs."""
    assert restart(root).status == 0
    now = processes(root)
    told = []
    try:
        for more in range(8):
            root(f"echo {now + more} >{CGROUP}/pids.max")
            told.append(call("memory.usage"))
            processes(root)
    finally:
        root(f"echo 2048 >{CGROUP}/pids.max")
    refused = [ran.refused for ran in told if ran.refused]
    assert all(words.startswith(REFUSED) and "Resource temporarily unavailable" in words for words in refused)
    for step in MAKERS[backend]:
        assert any(f"set up: {step}:" in words for words in refused), refused
    assert told[-1].exit_code == 0


def test_without_descriptors_calls_are_refused_by_name(root: Run, call: Call) -> None:
    now = [int(fd) for fd in root(f"ls /proc/{PID}/fd").text.split()]
    told = []
    try:
        for limit in range(min(set(range(999)) - {*now}), max(now) + 40, 3):
            assert root(f"prlimit --pid {PID} --nofile={limit}:4096").status == 0
            told.append(call("memory.usage"))
    finally:
        root(f"prlimit --pid {PID} --nofile=4096:4096")
    refused = [ran for ran in told if ran.refused]
    assert refused
    assert all(ran.refused.startswith((REFUSED, BUSY)) for ran in refused)
    assert [ran.refused for ran in refused if "Too many open files" not in ran.refused] == []
    assert all(ran.exit_code == 0 for ran in told if not ran.refused)
    assert told[-1].exit_code == 0


def test_a_full_state_refuses_who_has_no_home_yet_and_nobody_else(root: Run, call: Call) -> None:
    own = f"{HOMES}/$(id -u claw)"
    assert call("file.list").exit_code == 0
    try:
        assert b"No space left" in root(f"cat /dev/zero >{HOMES}/full").stderr
        assert call("file.list").exit_code == 0, "who has a home still gets at it"
        assert root(f"mv {own} {HOMES}/kept").status == 0
        assert named(call("file.list"), "set up: home: No space left on device")
    finally:
        root(f"rm -f {HOMES}/full; rmdir {own}; mv {HOMES}/kept {own}")
    assert call("file.list").exit_code == 0


def test_a_full_tmp_ends_with_its_call(call: Call) -> None:
    ran = call("shell.run", command="cat /dev/zero >/tmp/full; echo x >/tmp/more && echo written")
    assert "No space left on device" in ran.stderr
    assert ran.stdout == ""
    assert call("shell.run", command="echo x >/tmp/more && echo written").stdout == "written\n"


VICTIMS = {
    ("launcher", "service"): f"kill -KILL {PID}",
    ("launcher", "launcher"): f"kill -KILL {LAUNCHER}",
    ("launcher", "spawner"): f"kill -KILL {SPAWNER}",
    ("launcher", "filler"): f"kill -KILL {FILLER}",
    ("bubblewrap", "service"): f"kill -KILL {PID}",
    # It lives no longer than its call: the moment comes when there is one.
    ("bubblewrap", "oldest"): f"until pkill -KILL -o -x bwrap -P {PID}; do :; done",
}


def storm(root: Run, *, kill: str = "", at: tuple[float, ...] = ()) -> dict[str, Any]:
    """Calls without a pause, three at once; meanwhile `kill` is done after each of these pauses."""
    kills = "".join(f"sleep {pause}; {kill}; systemctl reset-failed clawos-isolator;" for pause in at)
    done = root(
        f"cat >/run/storm.py <<'END OF PROGRAM'\n{STORM}\nEND OF PROGRAM\n"
        f"python3 -I /run/storm.py 3 >/run/storm.json & storm=$!; sleep 5; {kills}"
        "kill $storm; wait; cat /run/storm.json"
    )
    counts: dict[str, Any] = json.loads(done.text)
    return counts


def test_without_a_fault_all_calls_of_a_storm_run(root: Run) -> None:
    """The control of the one below."""
    counts = storm(root)
    assert counts["ran"] >= counts["since"] > 10
    assert counts["refused"] == counts["cut off"] == 0


@pytest.mark.parametrize(("backend", "victim"), VICTIMS, indirect=["backend"])
def test_whoever_is_killed_while_calls_are_set_up_leaves_nothing(
    root: Run, backend: str, victim: str
) -> None:
    """At other moments each time; the fixture then looks for what is left and calls."""
    before = root(f"echo {PID}").text
    counts = storm(root, kill=VICTIMS[backend, victim], at=(0.0, 2.03, 2.11, 2.17, 3.31))
    print(victim, counts)
    assert counts["since"] > 10, "afterwards they run again"
    if victim == "filler":
        assert counts["refused"] == counts["cut off"] == 0, "another takes its place"
    else:
        assert counts["refused"] + counts["cut off"] >= 1, "it was killed"
    assert (root(f"echo {PID}").text != before) == (victim == "service")
    assert_nothing_is_left(root)
