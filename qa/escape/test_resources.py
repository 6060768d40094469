"""What uses up the machine: the sandbox ends in time, the host's heart beats on, nothing is left over."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from qa.conftest import tool_calls
from qa.escape.guest import Guest
from qa.vm.machine import Channel

WALL_S = 10
LATE_S = 45
"""How long past its time a call may take to be gone: emulation without KVM is twenty times slower."""
LONGEST_S = 8
"""Between two beats. On the emulated machine an idle host's longest is about 1 s: a beat starts a program."""

FORKS = "while True:\n try: os.fork()\n except OSError: pass"
MEMORY = "held = []\nwhile True: held.append(bytearray(1 << 20))"
MEMORY_OF_MANY = (
    "for _ in range(60): os.fork() or held.extend(bytearray(1 << 20) for _ in range(1024))\ntime.sleep(60)"
)
DESCRIPTORS = """for _ in range(100):
 if os.fork() == 0: break
while True:
 try: held.append(socket.socketpair())
 except OSError: break
time.sleep(60)"""
IN_FLIGHT = """def stuff(pair):
 try:
  while True: pair[0].sendmsg([b'x' * 4096], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b'\\1\\0\\0\\0' * 200)])
 except OSError: pass
for _ in range(100):
 held.append(socket.socketpair()); held[-1][0].setblocking(False); stuff(held[-1])
time.sleep(60)"""
INODES = """count = 0
for d in ('/tmp', '/dev/shm'):
 try:
  while True: os.close(os.open(f'{d}/{count}', os.O_CREAT)); count += 1
 except OSError as error: print(errno.errorcode[error.errno])
print(count)"""
THREADS = """for _ in range(500):
 try: threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()
 except Exception: pass"""
ZOMBIES = "for _ in range(3000):\n try: os.fork() or os._exit(0)\n except OSError: pass\ntime.sleep(60)"
TIMERS = """libc = ctypes.CDLL(None); signal.signal(signal.SIGUSR1, signal.SIG_IGN)
event = struct.pack('qii', 0, signal.SIGUSR1, 0) + bytes(48); when = struct.pack('qqqq', 0, 1, 0, 1)
for _ in range(20):
 if os.fork() == 0: break
timer = ctypes.c_void_p()
while libc.timer_create(1, event, ctypes.byref(timer)) == 0: libc.timer_settime(timer, 0, when, None)
time.sleep(60)"""
DISK = """fd = os.open(os.path.expanduser('~/flood'), os.O_CREAT | os.O_WRONLY)
os.unlink(os.path.expanduser('~/flood'))
while True: os.pwrite(fd, bytes(1 << 24), 0); os.fsync(fd)"""
DEAF = "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 3, 15)]\nwhile True: time.sleep(1)"
STOPPED = "os.kill(os.getpid(), signal.SIGSTOP)"
IMPORTS = "import ctypes, errno, os, signal, socket, struct, threading, time; held = []\n"


@pytest.fixture
def clean(guest: Guest) -> Iterator[None]:
    """Compares what there is before and after: 0 cgroups, mounts, namespaces, processes, users, files."""
    guest.make_ready()
    before = guest.traces()
    yield
    deadline = time.monotonic() + 60
    while (left := new(before, guest.traces())) and time.monotonic() < deadline:
        time.sleep(2)
    assert left == {}, guest.root("journalctl -b -q -u clawos-isolator -n 12").text


def new(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    return {kind: more for kind in after if (more := sorted(set(after[kind]) - set(before[kind])))}


@pytest.fixture(scope="session")
def short(guest: Guest, channel: Channel) -> Guest:
    """Whose calls end after `WALL_S`."""
    return Guest(guest.root, tool_calls(channel, wall_s=WALL_S), guest.copies)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("program", "limits"),
    [
        pytest.param(FORKS, ("wall",), id="fork bomb"),
        pytest.param(MEMORY, ("memory",), id="memory bomb"),
        pytest.param(MEMORY_OF_MANY, ("memory",), id="memory bomb of many"),
        pytest.param(DESCRIPTORS, ("wall", "memory"), id="descriptor bomb"),
        pytest.param(IN_FLIGHT, ("wall",), id="descriptors in flight"),
        pytest.param(THREADS, ("wall",), id="thread bomb"),
        pytest.param(ZOMBIES, ("wall",), id="zombies"),
        pytest.param(TIMERS, ("wall",), id="timer bomb"),
        pytest.param(DISK, ("wall",), id="disk flood"),
        pytest.param(DEAF, ("wall",), id="deaf to signals"),
        pytest.param(STOPPED, ("wall",), id="stopped"),
    ],
)
def test_bomb_is_ended_by_its_limit(short: Guest, program: str, limits: tuple[str, ...]) -> None:
    with short.heartbeat() as pulse:
        ran = short.call("python.run", code=IMPORTS + program)
    assert ran.limit in limits, ran
    assert ran.wall_s < WALL_S + LATE_S
    assert pulse.longest_s < LONGEST_S, pulse
    assert pulse.beats > 3


@pytest.mark.usefixtures("clean")
def test_inode_bomb_meets_the_end_of_tmp(guest: Guest) -> None:
    with guest.heartbeat() as pulse:
        ran = guest.call("python.run", code=IMPORTS + INODES)
    assert ran.outcome == (0, "")
    assert ran.stdout.split()[:2] == ["ENOSPC", "ENOSPC"]
    assert 2 * 16384 <= int(ran.stdout.split()[2]) <= 2 * 16500, "one inode for each 4 KiB of 64 MiB, twice"
    assert pulse.longest_s < LONGEST_S, pulse


@pytest.mark.usefixtures("clean")
def test_output_flood_is_cut(guest: Guest) -> None:
    with guest.heartbeat() as pulse:
        ran = guest.inside("yes & yes >&2 & yes & wait")
    assert ran.limit == "output"
    assert len(ran.stdout) + len(ran.stderr) <= 5 << 20
    assert pulse.longest_s < LONGEST_S, pulse


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    "command",
    [
        "trap '' TERM HUP INT; (setsid sh -c 'setsid sleep 600 & sleep 600' &); exit 0",
        "trap '' TERM; (setsid sleep 600 </dev/null >/dev/null 2>&1 &); exit 0",
        "python3 -c 'import os; [os.fork() for _ in range(5)]; os.setsid(); os.pause()' & sleep 1",
    ],
)
def test_daemon_does_not_outlive_its_call(guest: Guest, command: str) -> None:
    with guest.heartbeat() as pulse:
        ran = guest.inside(command)
    assert ran.exit_code == 0, ran
    assert ran.limit is None
    assert pulse.longest_s < LONGEST_S, pulse


@pytest.mark.usefixtures("clean")
def test_killing_everybody_kills_nobody_else(guest: Guest) -> None:
    """kill(-1) by the sandbox's user, who outside is the user of every other sandbox too."""
    isolator = "$(systemctl show -P MainPID clawos-isolator)"
    alive = f"ps -o pid=,lstart=,comm= -p 1,{isolator},$(pgrep -d, -u clawos-agent,clawos-inference)"
    before = guest.root(alive).text
    assert len(before.splitlines()) >= 4
    assert guest.inside("sleep 30 & kill -KILL -1; wait $!; echo $?").stdout == "137\n"
    assert guest.root(alive).text == before
    control = guest.root(
        "unshare --pid --fork --kill-child sh -c 'sleep 30 & kill -KILL -1; wait $!; echo $?'"
    )
    assert control.text.strip() == "137", "positive control: it kills what it reaches"


def test_heart_that_stops_is_felt(guest: Guest) -> None:
    """The control of all the above."""
    with guest.heartbeat() as pulse:
        guest.root(
            f"systemctl kill -s STOP qa-heartbeat; sleep {LONGEST_S + 1};"
            "systemctl kill -s CONT qa-heartbeat; sleep 1"
        )
    assert pulse.longest_s > LONGEST_S


PLANTED = {
    "cgroups": (
        "mkdir /sys/fs/cgroup/system.slice/clawos-isolator.service/call-0",
        "rmdir /sys/fs/cgroup/system.slice/clawos-isolator.service/call-0",
    ),
    "mounts": ("mount -t tmpfs none /mnt", "umount /mnt"),
    "namespaces": ("systemd-run -q --unit=qa-left unshare -U sleep 600 && sleep 2", "systemctl stop qa-left"),
    "processes": (
        "systemd-run -q --unit=qa-left --uid=clawos-sandbox sleep 600 && sleep 2",
        "systemctl stop qa-left",
    ),
    "files": ("touch /dev/shm/left", "rm /dev/shm/left"),
    # Another mode than that of `facts`, by which it is known.
    "memory": ("ipcmk -M 4096 -p 600 >/dev/null", "ipcrm -m $(ipcs -m | awk '$4 == 600 { print $2 }')"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_left_is_seen(guest: Guest, kind: str) -> None:
    """The control of `clean`."""
    plant, remove = PLANTED[kind]
    before = guest.traces()
    assert guest.root(plant).status == 0
    try:
        assert kind in new(before, guest.traces())
    finally:
        guest.root(remove)
