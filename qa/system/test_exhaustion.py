"""What a sandbox is made of runs out or is taken away: calls are refused by name, and work again after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from qa.conftest import Call, Ran
from qa.system.test_sandbox import CGROUP, leftovers
from qa.vm.machine import Output

Run = Callable[..., Output]

REFUSED = "org.clawos.Error.SandboxRefused"
PID = "$(systemctl show -P MainPID clawos-isolator)"
HOMES = "/var/lib/clawos/isolator/home"


def works(call: Call) -> bool:
    ran = call("memory.usage")
    return ran.exit_code == 0 and ran.stdout != ""


@pytest.fixture(autouse=True)
def _as_before(root: Run, call: Call) -> Iterator[None]:
    """The control, on both sides: without the fault the same call works; and nothing is left over."""
    assert works(call)
    before = root(f"ls /proc/{PID}/fd | wc -l; systemctl show -P MainPID clawos-isolator").text.split()
    yield
    assert works(call)
    deadline = time.monotonic() + 30
    while (left := leftovers(root)) and time.monotonic() < deadline:
        time.sleep(1)
    assert left == ""
    after = root(f"ls /proc/{PID}/fd | wc -l; systemctl show -P MainPID clawos-isolator").text.split()
    assert after[1] != before[1] or int(after[0]) <= int(before[0]), "descriptors were lost"


def named(ran: Ran, words: str) -> bool:
    return ran.refused.startswith(REFUSED) and words in ran.refused


def restart(root: Run) -> Output:
    return root("systemctl reset-failed clawos-isolator; systemctl restart clawos-isolator")


def test_without_a_controller_the_service_does_not_start(root: Run, call: Call) -> None:
    """Taken away just before it looks, for systemd hands on again what a unit needs."""
    dropin = "/run/systemd/system/clawos-isolator.service.d/fault.conf"
    slice_control = "/sys/fs/cgroup/system.slice/cgroup.subtree_control"
    root(
        f"mkdir -p {dropin.rpartition('/')[0]}; printf '[Service]\\nRestart=no\\n"
        f'ExecStartPre=+/bin/sh -c "echo -pids >{slice_control}"\\n\' >{dropin}; systemctl daemon-reload'
    )
    try:
        assert restart(root).status != 0
        assert (
            "the controllers pids are not delegated" in root("journalctl -b -q -u clawos-isolator -n 30").text
        )
        ran = call("memory.usage")
        assert ran.refused
        assert ran.exit_code is None
    finally:
        root(f"rm {dropin}; systemctl daemon-reload; echo +pids >{slice_control}")
        assert restart(root).status == 0


@pytest.mark.parametrize("controller", ["pids", "memory", "cpu"])
def test_a_controller_that_goes_away_means_no_call(root: Run, call: Call, controller: str) -> None:
    control = f"{CGROUP}/cgroup.subtree_control"
    assert root(f"echo -{controller} >{control}").status == 0
    try:
        assert named(call("memory.usage"), "set up: cgroup:")
    finally:
        root(f"echo +{controller} >{control}")


def test_a_full_table_of_processes_is_named(root: Run, call: Call) -> None:
    """One more each time, so that it ends at the launcher, at its init and at the worker."""
    now = int(root(f"cat {CGROUP}/pids.current").text)
    told = []
    try:
        for more in range(6):
            root(f"echo {now + more} >{CGROUP}/pids.max")
            told.append(call("memory.usage"))
    finally:
        root(f"echo 2048 >{CGROUP}/pids.max")
    refused = [ran.refused for ran in told if ran.refused]
    assert all(words.startswith(REFUSED) and "Resource temporarily unavailable" in words for words in refused)
    for step in ("launcher", "namespaces", "fork"):
        assert any(f"set up: {step}:" in words for words in refused), refused
    assert all(ran.exit_code is not None for ran in told if not ran.refused)


def test_without_descriptors_calls_are_refused_by_name(root: Run, call: Call) -> None:
    highest = int(root(f"ls /proc/{PID}/fd | sort -n | tail -1").text)
    open_now = int(root(f"ls /proc/{PID}/fd | wc -l").text)
    told = []
    try:
        for more in range(4, 28, 4):
            root(f"prlimit --pid {PID} --nofile={max(open_now, highest + 1) + more}:4096")
            told.append(call("memory.usage"))
    finally:
        root(f"prlimit --pid {PID} --nofile=4096:4096")
    refused = [ran for ran in told if ran.refused]
    assert refused
    assert all(named(ran, "Too many open files") for ran in refused)
    assert all(ran.exit_code == 0 for ran in told if not ran.refused)


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


def test_an_isolator_killed_while_it_sets_up_leaves_nothing(root: Run) -> None:
    """At other moments each time; the fixture then looks for what is left and calls."""
    for pause_ms in (0, 100, 200, 400, 800):
        root(
            "(runuser -u claw -- env HOME=/home/claw clawsh -c '!sleep 60' >/dev/null 2>&1 &) ;"
            f"until pgrep claw-launch >/dev/null; do :; done; sleep {pause_ms / 1000};"
            "systemctl kill -s KILL --kill-whom=main clawos-isolator"
        )
        deadline = time.monotonic() + 60
        while "sleep" in leftovers(root) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert leftovers(root) == ""
        assert restart(root).status == 0
