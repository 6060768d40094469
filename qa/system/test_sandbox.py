"""The sandbox under the real cgroup controllers, by both backends: limits hold, nothing is left or gets out.

Each protection has its positive control: the same act works outside the sandbox, or with a higher limit.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from typing import Any

import pytest

from qa.conftest import isolator_status
from qa.vm.machine import Output

pytestmark = pytest.mark.usefixtures("unwatched", "backend")

Run = Callable[..., Output]

CGROUP = "/sys/fs/cgroup/system.slice/clawos-isolator.service"
# Processes of calls with a user of their own, and of pid 1 of each sandbox.
OWN_USERS = f"ps -e --no-headers -o uid,pid,comm | awk '$1 >= {0x70000000} && $1 < {0x70000000 + 1024}'"
FIND_CGROUPS = f"find {CGROUP} -mindepth 1 -type d ! -name supervisor"


RUN = """
import asyncio, json, os, sys
from clawos.core.bus import Bus
async def main():
    bus = await Bus.connect()
    nothing = os.open(os.devnull, os.O_RDONLY)
    _, *streams = await bus.call("org.clawos.Isolator1", "Run", sys.argv[1], fds=(nothing,))
    def read(fd):
        with os.fdopen(fd) as stream:
            return stream.read()
    stdout, stderr, result = await asyncio.gather(*(asyncio.to_thread(read, fd) for fd in streams))
    print(json.dumps({"stdout": stdout, "stderr": stderr, **json.loads(result)}))
    await bus.close()
asyncio.run(main())
"""


def sandboxed(root: Run, *argv: str, **spec: Any) -> dict[str, Any]:
    """What came of a call that asks for no more than these."""
    text = json.dumps({"tool": "test.tool", "argv": argv, **spec})
    done = root(f"python3 -I - {shlex.quote(text)} <<'END'\n{RUN}\nEND\n", 200)
    assert done.status == 0, done.stderr
    result: dict[str, Any] = json.loads(done.text)
    return result


def leftovers(root: Run) -> str:
    """Processes of the sandbox users and cgroups of calls; empty when all is clean."""
    users = "clawos-sandbox,clawos-units,clawos-power,clawos-settings"
    return root(f"pgrep -lu {users}; {OWN_USERS}; {FIND_CGROUPS}").text


def assert_nothing_is_left(root: Run) -> None:
    deadline = time.monotonic() + 30
    while (left := leftovers(root)) and time.monotonic() < deadline:
        time.sleep(1)
    assert left == ""


@pytest.fixture(autouse=True)
def _nothing_left(root: Run) -> object:
    yield
    assert_nothing_is_left(root)


def test_memory_limit(user: Run, root: Run) -> None:
    started = time.monotonic()
    done = user("-c", "!tail /dev/zero", timeout_s=200)
    assert done.status == 128 + 9
    assert time.monotonic() - started < 200
    assert "memory" in root("journalctl -b -q -u clawos-isolator -o verbose -n 5").text
    assert root("systemctl is-active clawos-isolator").text.strip() == "active"
    control = root(
        "systemd-run -q --pipe -p MemoryMax=1G sh -c 'head -c 450000000 /dev/zero | tail | wc -c'", 200
    )
    assert control.text.strip() == "450000000", "the control needs more than the limit and must succeed"


def test_fork_bomb_is_contained(user: Run, root: Run) -> None:
    done = user("-c", "!bomb() { bomb | bomb & }; bomb; sleep 5; echo survived", timeout_s=300)
    assert done.status in (0, 1, 2, 124, 137, 254), done
    assert root("true").status == 0
    assert int(root("ps -e --no-headers | wc -l").text) < 300


def test_memory_and_pids_are_set_for_each_call(user: Run, root: Run) -> None:
    root("(runuser -u claw -- env HOME=/home/claw clawsh -c '!sleep 20' >/dev/null 2>&1 &)")
    deadline = time.monotonic() + 60
    found: list[str] = []
    while not found and time.monotonic() < deadline:
        found = root(FIND_CGROUPS).text.split()
    assert found, "no cgroup of the call appeared"
    leaf = found[-1]
    values = root(
        f"cd {leaf} && cat memory.max memory.swap.max pids.max cpu.max memory.oom.group io.max"
    ).text.split("\n")
    assert values[0] == "402653184"
    assert values[1] == "0"
    assert values[2] == "128"
    assert values[3].split()[0] != "max"
    assert values[4] == "1"
    disk = root("lsblk -ndo MAJ:MIN /dev/vda").text.strip()
    assert values[5] == f"{disk} rbps=268435456 wbps=268435456 riops=max wiops=max"
    time.sleep(22)


def test_the_result_says_what_it_took(root: Run) -> None:
    result = sandboxed(root, "/bin/sh", "-c", "sleep 1 | sleep 1 | sleep 1")
    assert (result["exit_code"], result["out_of_memory"]) == (0, False)
    assert 5 <= result["peak_pids"] <= 6, "pid 1, the shell and three"
    assert result["peak_memory_bytes"] > 100_000
    assert result["cpu_s"] > 0
    result = sandboxed(root, "/usr/bin/tail", "/dev/zero")
    assert (result["out_of_memory"], result["limit"], result["signal"]) == (True, "memory", 9)


def user_outside(root: Run, **spec: Any) -> int:
    """The id that the machine sees a call run as."""
    argv = ["/bin/sleep", "7.25"]
    text = shlex.quote(json.dumps({"tool": "test.tool", "argv": argv, **spec}))
    seen = root(
        f"python3 -I - {text} >/dev/null <<'END' &\n{RUN}\nEND\n"
        f"until pid=$(pgrep -xf '{' '.join(argv)}'); do sleep 0.2; done; ps -o uid= -p $pid; wait",
        60,
    )
    return int(seen.text)


def test_a_call_is_somebody_else_outside(root: Run) -> None:
    """And inside the user that is named; a home's files know only that one."""
    look = ("/bin/sh", "-c", "id -un; id -u")
    named = root("id -u clawos-sandbox").text.strip()
    assert sandboxed(root, *look)["stdout"].split() == ["clawos-sandbox", named]
    assert 0x70000000 < user_outside(root) < 0x70000000 + 1024
    home = {"home": "read", "home_owner": int(root("id -u claw").text)}
    assert sandboxed(root, *look, **home)["stdout"].split() == ["claw", named]
    assert user_outside(root, **home) == int(named)


def test_what_is_mounted_later_is_seen(root: Run) -> None:
    """The roots that are made ahead follow the machine."""
    root("mkdir -p /var/log/later")
    ls = ("/bin/ls", "/var/log/later")
    assert sandboxed(root, *ls, read=["/var/log"])["stdout"] == ""
    root("mount -t tmpfs -o mode=755 none /var/log/later && touch /var/log/later/file")
    try:
        assert sandboxed(root, *ls, read=["/var/log"])["stdout"] == "file\n"
    finally:
        assert root("umount /var/log/later").status == 0
    assert sandboxed(root, *ls, read=["/var/log"])["stdout"] == ""
    root("rmdir /var/log/later")


def test_output_flood_is_cut(user: Run) -> None:
    done = user("-c", "!yes", timeout_s=200)
    assert done.status != 0
    assert len(done.stdout) <= 5 << 20


def test_daemon_does_not_outlive_its_call(user: Run) -> None:
    # the autouse fixture looks for what is left
    assert user("-c", "!trap '' TERM; (setsid sleep 600 &) ; exit 0").status == 0


def test_vanished_caller_takes_the_sandbox_along(root: Run) -> None:
    root("timeout -s KILL 10 runuser -u claw -- env HOME=/home/claw clawsh -c '!sleep 600'", 60)


def test_killed_isolator_leaves_no_sandbox(root: Run) -> None:
    root("(runuser -u claw -- env HOME=/home/claw clawsh -c '!sleep 600' >/dev/null 2>&1 &)")
    deadline = time.monotonic() + 60
    while "sleep" not in leftovers(root) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert "sleep" in leftovers(root)
    root("systemctl kill -s KILL --kill-whom=main clawos-isolator; sleep 3")
    deadline = time.monotonic() + 60
    while (
        root("systemctl is-active clawos-isolator").text.strip() != "active" and time.monotonic() < deadline
    ):
        time.sleep(1)
    root("systemctl reset-failed clawos-isolator")


@pytest.mark.parametrize(
    ("inside", "control"),
    [
        ("cat /etc/shadow", "cat /etc/shadow"),
        ("touch /usr/x", "touch /run/x && rm /run/x"),
        ("mount -t tmpfs none /tmp", "mount -t tmpfs none /mnt && umount /mnt"),
        ("unshare -U true", "unshare -U true"),
        ("ls /proc/1/root/var/lib", "ls /proc/1/root/var/lib"),
        ("ls /var/lib/clawos/agent", "ls /var/lib/clawos/agent"),
        ("ls /home/claw/../../var/lib/clawos", "ls /home/claw/../../var/lib/clawos"),
        ("test -e /run/dbus/system_bus_socket", "test -e /run/dbus/system_bus_socket"),
        ("test -e /dev/vda", "test -e /dev/vda"),
        ("dmesg", "dmesg"),
        ("echo 1 > /proc/sys/kernel/sysrq", "echo 0 > /proc/sys/kernel/sysrq"),
        ("grep -v -e lo: -e Inter -e face /proc/net/dev", "grep -q lo: /proc/net/dev"),
        (
            'python3 -c "import socket; socket.socket(socket.AF_INET)"',
            'python3 -c "import socket; socket.socket(socket.AF_INET)"',
        ),
        (
            'python3 -c "import socket; socket.socket(38, socket.SOCK_SEQPACKET)"',
            "test -r /proc/crypto",
        ),
    ],
)
def test_act_fails_inside_and_works_outside(user: Run, root: Run, inside: str, control: str) -> None:
    assert root(control).status == 0, "positive control"
    assert user("-c", f"!{inside}").status != 0


def test_processes_of_the_host_are_out_of_reach(user: Run, root: Run) -> None:
    pid = root("pgrep -o systemd-journal").text.strip()
    assert root(f"kill -0 {pid}").status == 0
    assert user("-c", f"!kill -0 {pid}").status != 0


def test_a_full_home_does_not_fill_the_state(user: Run, root: Run) -> None:
    inside = root("findmnt -no SOURCE /var/lib/clawos/isolator/home").text
    assert inside
    assert inside != root("findmnt -no SOURCE /var").text


def test_state_of_the_sandbox(user: Run) -> None:
    status = user("-c", "!cat /proc/self/status").text
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert all(int(fields[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert user("-c", "!ls /proc/self/fd | wc -l").text.strip() == "4", "0-2 and ls's own"


def test_namespaces_are_its_own(user: Run, root: Run) -> None:
    names = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
    inside = user("-c", "!for n in " + " ".join(names) + "; do readlink /proc/self/ns/$n; done")
    outside = root("for n in " + " ".join(names) + "; do readlink /proc/self/ns/$n; done")
    assert len(inside.text.split()) == len(names)
    assert not set(inside.text.split()) & set(outside.text.split())


def test_status_names_what_holds(root: Run, backend: str) -> None:
    status = isolator_status(root)
    assert status["backend"] == backend
    assert status["landlock_abi"] >= 6
    assert set(status["namespaces"]) >= {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"}


def test_the_backend_is_the_one_that_runs(root: Run, backend: str) -> None:
    program = {"launcher": "claw-launch", "bubblewrap": "bwrap"}
    root("(runuser -u claw -- env HOME=/home/claw clawsh -c '!sleep 20' >/dev/null 2>&1 &)")
    deadline = time.monotonic() + 60
    while "sleep" not in leftovers(root) and time.monotonic() < deadline:
        time.sleep(0.5)
    running = root("ps -e -o comm=").text.split()
    assert program.pop(backend) in running
    assert not set(program.values()) & set(running)
    time.sleep(22)
