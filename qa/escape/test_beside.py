"""Two sandboxes at once, and a host that mounts while one runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

import pytest

from qa.escape.guest import Guest, Run

HOME = "/var/lib/clawos/isolator/home/1000"
SEEN = "/var/log/qa-escape"
WAIT_S = 120

Beside = Callable[[str], None]


@pytest.fixture
def beside(guest: Guest, root: Run) -> Iterator[Beside]:
    """Start a command in a sandbox that lives until its home holds `end`; returns once it is under way."""
    assert guest.inside("rm -f ~/end ~/up ~/seen").exit_code == 0

    def start(command: str) -> None:
        inside = f"{command}; touch ~/up; until [ -e ~/end ]; do sleep 0.2; done"
        shell = f"runuser -u claw -- env HOME=/home/claw clawsh -c {shlex.quote('!' + inside)}"
        root(f"systemd-run -q --unit=qa-beside-sandbox sh -c {shlex.quote(shell)}")
        assert root(f"until [ -e {HOME}/up ]; do sleep 0.2; done", WAIT_S).status == 0, "it did not start"

    yield start
    root(f"touch {HOME}/end; while systemctl is-active -q qa-beside-sandbox; do sleep 0.5; done", WAIT_S)
    root(f"rm -f {HOME}/end {HOME}/up {HOME}/seen")


HOLD = (
    "import socket, time; s = socket.socket(1); s.bind(chr(0) + 'escape'); s.listen();"
    "open('/tmp/held', 'w'); time.sleep(600)"
)
CONNECT = "import socket; socket.socket(1).connect(chr(0) + 'escape')"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("touch /tmp/mine", "ls /tmp/mine", id="file in /tmp"),
        pytest.param("touch /dev/shm/mine", "ls /dev/shm/mine", id="file in /dev/shm"),
        pytest.param("sleep 600 & true", "pgrep -x sleep", id="process"),
        pytest.param(
            f"python3 -c {shlex.quote(HOLD)} & until [ -e /tmp/held ]; do sleep 0.1; done",
            f"python3 -c {shlex.quote(CONNECT)}",
            id="abstract socket",
        ),
    ],
)
def test_two_sandboxes_share_nothing_but_the_home(
    guest: Guest, beside: Beside, first: str, second: str
) -> None:
    control = guest.inside(f"{first}; {second} && echo here")
    assert "here" in control.stdout, f"positive control, in one sandbox: {control}"
    beside(first)
    ran = guest.inside(f"test -e ~/up && {second}; echo status $?")
    assert "status 0" not in ran.stdout, ran
    assert guest.inside("test -e ~/up").exit_code == 0, "positive control: the other one is still there"


@pytest.fixture
def mount_point(root: Run) -> Iterator[None]:
    root(f"mkdir -p {SEEN}")
    yield
    root(f"umount {SEEN}; rmdir {SEEN}")


def test_mounts_of_the_host_do_not_reach_a_sandbox(
    guest: Guest, root: Run, mount_point: None, beside: Beside
) -> None:
    beside(f"(until [ -e ~/go ]; do sleep 0.2; done; ls {SEEN} >~/seen; touch ~/done) & true")
    assert root(f"mount -t tmpfs none {SEEN} && touch {SEEN}/event && touch {HOME}/go").status == 0
    try:
        assert root(f"until [ -e {HOME}/done ]; do sleep 0.2; done", WAIT_S).status == 0
        assert root(f"cat {HOME}/seen").text == ""
        assert guest.inside(f"ls {SEEN}").stdout == "event\n", "positive control: one made afterwards has it"
    finally:
        root(f"rm -f {HOME}/go {HOME}/done")
