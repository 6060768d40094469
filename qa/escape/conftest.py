"""The guest made ready for an attacker: his programs at hand, and beside the sandbox what he is after."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from qa.conftest import BACKENDS, Call, sandboxes_by, tool_calls, without_reactions
from qa.escape.guest import OUTSIDE, Answers, Guest, Run
from qa.vm.machine import Channel

# How the control differs from a plain program of root's: it has a descriptor to find, or spares the machine.
BEFORE = {"calls": OUTSIDE, "files": "exec 9</etc/hostname;", "world": ""}

Probed = Callable[[str], tuple[Answers, Answers]]
"""The answers to a group of acts, inside and outside."""


@pytest.fixture(scope="session")
def _attacker(root: Run) -> Iterator[None]:
    done = root("mount -t erofs -o ro,nosuid,nodev /dev/disk/by-label/share /usr/local")
    assert done.status == 0, done.stderr
    yield
    root("umount /usr/local")


@pytest.fixture(scope="session", params=BACKENDS)
def guest(request: pytest.FixtureRequest, root: Run, call: Call, _attacker: None) -> Iterator[Guest]:
    """What every backend of the isolator has to stand, in turn; restarted, it sees what was mounted."""
    more = "zygote_s = 86400", "zygote_idle_s = 86400"
    with without_reactions(root), sandboxes_by(request.param, root, *more):
        made = Guest(root, call, copies=request.param == "launcher")
        made.make_ready()
        yield made


@pytest.fixture(scope="session")
def facts(root: Run, _attacker: None) -> Iterator[dict[str, Any]]:
    """What lies beside the sandbox and what the attacker is told of it."""
    told: dict[str, Any] = {
        "pid": int(root("pgrep -o systemd-journal").text),
        "abstract": "clawos-escape",
        "file": "clawos-escape",
        "key": "clawos-escape",
        "paths": [
            "/run/dbus/system_bus_socket",
            "/run/systemd/journal/socket",
            "/run/systemd/journal/stdout",
            "/run/systemd/notify",
            "/run/systemd/private",
            "/run/udev/control",
            "/dev/log",
        ],
        "internet": {
            "loopback": ["127.0.0.1", 8077],
            "IPv6 loopback": ["::1", 8077],
            "LAN": ["10.77.0.1", 80],
            "IPv6": ["fd77::1", 80],
            "metadata": ["169.254.169.254", 80],
        },
        "dns": ["10.77.0.1", 53],
    }
    program = Path(__file__).with_name("host") / "beside.py"
    words = shlex.quote(json.dumps(told))
    done = root(
        f"cat >/run/beside.py <<'END OF PROGRAM'\n{program.read_text()}\nEND OF PROGRAM\n"
        f"systemd-run -q --unit=qa-beside -p Type=exec python3 -I /run/beside.py {words}"
        " && until journalctl -q -u qa-beside -o cat | grep -qx ready; do"
        " systemctl is-active -q qa-beside || { journalctl -u qa-beside; exit 1; }; sleep 0.5; done"
    )
    assert done.status == 0, done.text
    yield told
    addresses = [host for host, _ in told["internet"].values() if host not in ("127.0.0.1", "::1")]
    root(
        "systemctl stop qa-beside; ipcrm -M 0x636c6177 -S 0x636c6177 -Q 0x636c6177;"
        "rm -f /run/beside.py /tmp/clawos-escape /dev/shm/clawos-escape /dev/mqueue/clawos-escape;"
        + "".join(f"ip address del {a}/{128 if ':' in a else 32} dev lo;" for a in addresses)
    )


@pytest.fixture(scope="session")
def probed(guest: Guest, facts: dict[str, Any]) -> Probed:
    @cache
    def answers(group: str) -> tuple[Answers, Answers]:
        return guest.probe_inside(group, facts), guest.probe_outside(group, facts, BEFORE[group])

    return answers


@pytest.fixture(scope="session")
def python_guest(guest: Guest, channel: Channel) -> Guest:
    """The same under the system call profile `python`, which no shipped tool asks for yet."""
    return Guest(guest.root, tool_calls(channel, seccomp="python"), guest.copies)
