"""Tools, called through the isolator by their shipped manifests: what they do, and what their users may not.

What ends the machine or must outlast that is in test_power.py, on a guest of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

import pytest

from qa.conftest import Call
from qa.vm.machine import Output

Run = Callable[..., Output]

HOME = "/var/lib/clawos/isolator/home/1000/qa-tools"


@pytest.fixture
def folder(root: Run, call: Call) -> Iterator[str]:
    """A folder of the user's home as tools see it; as root sees it, it is HOME."""
    made = call("directory.create", path="qa-tools")
    assert made.outcome == (0, "")
    assert made.stdout == "Made the directory qa-tools.\n"
    yield "qa-tools"
    root(f"rm -rf {HOME}")


def test_directory_is_made(root: Run, call: Call, folder: str) -> None:
    assert call("directory.create", path=f"~/{folder}/deep/er").outcome == (0, "")
    assert root(f"test -d {HOME}/deep/er").status == 0
    again = call("directory.create", path=folder)
    assert (again.exit_code, again.stderr) == (1, "make-directory: qa-tools is there already\n")


def test_file_is_copied_and_never_over_another(root: Run, call: Call, folder: str) -> None:
    assert call("file.write", path=f"{folder}/a", text="one").outcome == (0, "")
    assert call("file.write", path=f"{folder}/b", text="two").outcome == (0, "")
    for target in ("c", "deep"):
        if target == "deep":
            call("directory.create", path=f"{folder}/deep")
        assert call("file.copy", {"from": f"{folder}/a", "to": f"{folder}/{target}"}).outcome == (0, "")
    assert root(f"cat {HOME}/c {HOME}/deep/a").text == "one\none\n"
    for target in ("b", "deep"):
        over = call("file.copy", {"from": f"{folder}/a", "to": f"{folder}/{target}"})
        assert over.exit_code == 1
        assert "is there already" in over.stderr
    assert root(f"cat {HOME}/b").text == "two\n"


def test_file_is_moved_and_never_over_another(root: Run, call: Call, folder: str) -> None:
    assert call("file.write", path=f"{folder}/a", text="one").outcome == (0, "")
    assert call("file.write", path=f"{folder}/b", text="two").outcome == (0, "")
    over = call("file.move", {"from": f"{folder}/a", "to": f"{folder}/b"})
    assert over.exit_code == 1
    assert "qa-tools/b is there already" in over.stderr
    assert root(f"cat {HOME}/a {HOME}/b").text == "one\ntwo\n"
    assert call("file.move", {"from": f"{folder}/a", "to": f"~/{folder}/renamed"}).outcome == (0, "")
    assert root(f"ls {HOME}").text.split() == ["b", "renamed"]


def test_file_is_described(root: Run, call: Call, folder: str) -> None:
    call("file.write", path=f"{folder}/a", text="one")
    shown = call("file.info", path=f"{folder}/a").stdout
    assert "Kind:      regular file\nSize:      4 bytes\nOwner:     you\n" in shown
    assert "Owner:     the system, or somebody else" in call("file.info", path="/etc/hostname").stdout
    digest = root(f"sha256sum <{HOME}/a").text.split()[0]
    assert call("file.hash", path=f"{folder}/a").stdout == f"{digest}  qa-tools/a\n"


def test_directory_is_measured(root: Run, call: Call, folder: str) -> None:
    call("file.write", path=f"{folder}/small", text="x")
    root(f"head -c 3000000 /dev/zero >{HOME}/large")
    total, first, second = call("directory.size", path=folder).stdout.splitlines()
    assert total == "qa-tools takes 2.9 MiB."
    assert first.split() == ["2.9", "MiB", "99", "%", "large"]
    assert second.endswith(" small")
    assert call("directory.size").stdout.startswith("/home/claw takes ")


@pytest.mark.parametrize("target", ["/etc/x", "/usr/x", "/var/log/x", "/home/x", "/var/lib/clawos/x"])
def test_nothing_outside_the_home_is_touched(root: Run, call: Call, folder: str, target: str) -> None:
    call("file.write", path=f"{folder}/a", text="one")
    for tool in ("file.copy", "file.move"):
        ran = call(tool, {"from": f"{folder}/a", "to": target})
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert "only your home" in ran.stderr or "there is no directory" in ran.stderr, ran.stderr
    ran = call("directory.create", path=target)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "only your home" in ran.stderr
    assert root(f"ls {target}").status != 0
    assert root(f"cat {HOME}/a").text == "one\n"


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        ("file.info", "/var/lib/clawos/agent"),
        ("file.info", "/root"),
        ("file.hash", "/etc/shadow"),
        ("file.hash", "/dev/vda"),
        ("directory.size", "/home/claw/../../var/lib/clawos"),
    ],
)
def test_what_tools_may_not_see(root: Run, call: Call, tool: str, path: str) -> None:
    assert root(f"ls -d {path}").status == 0, "positive control"
    assert call(tool, path=path).exit_code == 1


def test_what_others_own_is_not_copied(root: Run, call: Call, folder: str) -> None:
    assert call("file.copy", {"from": "/etc/hostname", "to": folder}).outcome == (0, "")
    assert root(f"cat {HOME}/hostname").text == root("cat /etc/hostname").text
    ran = call("file.copy", {"from": "/etc/shadow", "to": folder})
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "Permission denied" in ran.stderr
    assert root(f"ls -A {HOME}").text == "hostname\n"


def test_disks_are_those_of_the_machine(root: Run, call: Call) -> None:
    rows = [line.split() for line in call("disk.list").stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == root("lsblk -nlo NAME").text.split()
    assert [row[3] for row in rows] == root("lsblk -nlo TYPE").text.split()
    used = {row[4]: row[5] for row in rows if len(row) > 4}
    assert used.items() >= {("/", "(erofs)"), ("/var", "(ext4)")}


def test_accounts_are_those_of_the_machine(root: Run, call: Call) -> None:
    head, *rows, rest = call("user.list").stdout.splitlines()
    assert head.split() == ["USER", "ID", "NAME", "SHELL"]
    assert [row.split()[0] for row in rows] == ["root", "claw"]
    assert "administrator" in rows[1]
    assert rows[1].endswith("/usr/bin/clawsh")
    assert rest == f"Beside them {int(root('getent passwd | wc -l').text) - 2} accounts of services."


def test_who_is_logged_in(root: Run, call: Call) -> None:
    assert call("user.sessions").stdout == "Nobody is logged in.\n"
    login = "systemd-run -q --unit=qa-login -p PAMName=login -p User=claw -p TTYPath=/dev/tty9"
    assert root(f"{login} -p StandardInput=tty sleep infinity").status == 0
    try:
        root("until loginctl list-sessions --no-legend | grep -q tty9; do sleep 1; done", 60)
        head, row = call("user.sessions").stdout.splitlines()
        assert head.split() == ["USER", "TERMINAL", "SINCE"]
        assert row.split()[:2] == ["claw", "tty9"]
    finally:
        root("systemctl stop qa-login")


def test_boot_time(root: Run, call: Call) -> None:
    ran = call("system.boot")
    assert ran.outcome == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0] == root("systemd-analyze time | head -n 1").text.strip()
    assert lines[2] == "The slowest units:"
    assert any(line.endswith(".service") for line in lines[3:]), ran.stdout
    assert len(lines) <= 13


def test_python_in_the_sandbox(root: Run, call: Call) -> None:
    assert call("python.run", code="import sys\nsys.flags.isolated, 6 * 7").stdout == "(1, 42)\n"
    ran = call("python.run", code="open('/etc/x', 'w')")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "OSError" in ran.stderr or "PermissionError" in ran.stderr
    ran = call("python.run", code="import socket; socket.socket(socket.AF_INET)")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert root("test -e /etc/x").status == 1


def test_time_zone_is_set(root: Run, call: Call) -> None:
    assert root("timedatectl show -P Timezone").text == "UTC\n"
    try:
        ran = call("time.zone.set", zone="tokyo")
        assert ran.outcome == (0, "")
        assert ran.stdout.startswith("The time zone is Asia/Tokyo: ")
        assert root("timedatectl show -P Timezone").text == "Asia/Tokyo\n"
        assert "JST" in call("time.now").stdout, "the next sandbox has it"
        ran = call("time.zone.set", zone="Atlantis")
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert "there is no time zone" in ran.stderr
        assert root("timedatectl show -P Timezone").text == "Asia/Tokyo\n"
    finally:
        assert root("timedatectl set-timezone UTC").status == 0


def test_machine_is_renamed(root: Run, call: Call) -> None:
    try:
        ran = call("host.rename", host="media-box")
        assert ran.outcome == (0, "")
        assert root("cat /etc/hostname /proc/sys/kernel/hostname").text == "media-box\nmedia-box\n"
        assert call("host.name").stdout == "This machine is called media-box.\n", "the next sandbox has it"
        for wrong in ("-x", "a..b", "x" * 64):
            assert call("host.rename", host=wrong).exit_code == 1
        assert root("cat /etc/hostname").text == "media-box\n"
    finally:
        assert root("hostnamectl hostname clawos").status == 0


LOGIND = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager"
TIMEDATED = "org.freedesktop.timedate1 /org/freedesktop/timedate1 org.freedesktop.timedate1"
HOSTNAMED = "org.freedesktop.hostname1 /org/freedesktop/hostname1 org.freedesktop.hostname1"
IN_AN_HOUR = "$(($(date +%s) + 3600))000000"
# logind asks polkit the same for a rehearsal, and then only writes a line.
POWER_OFF = f"busctl call {LOGIND} ScheduleShutdown st dry-poweroff {IN_AN_HOUR}"
RESTART = f"busctl call {LOGIND} ScheduleShutdown st dry-reboot {IN_AN_HOUR}"
# Other values than they have: what changes nothing is granted to everybody.
SET_ZONE = f"busctl call {TIMEDATED} SetTimezone sb Asia/Tokyo false"
RENAME = f"busctl call {HOSTNAMED} SetStaticHostname sb intruder false"


def as_user(user: str, command: str) -> str:
    return (
        f"setpriv --reuid={user} --regid={user} --clear-groups timeout 60 sh -c {shlex.quote(command)} 2>&1"
    )


@pytest.fixture
def rehearsal(root: Run) -> Iterator[None]:
    yield
    root(f"busctl call {LOGIND} CancelScheduledShutdown; rm -f /run/nologin")


@pytest.mark.usefixtures("rehearsal")
@pytest.mark.parametrize("command", [POWER_OFF, RESTART])
def test_user_of_the_power_tools_may_end_the_machine(root: Run, command: str) -> None:
    done = root(as_user("clawos-power", command))
    assert done.status == 0, done.text


@pytest.mark.usefixtures("rehearsal")
@pytest.mark.parametrize(
    ("user", "command"),
    [
        *((user, POWER_OFF) for user in ("clawos-units", "clawos-settings", "clawos-sandbox", "claw")),
        *((user, RESTART) for user in ("clawos-units", "clawos-settings", "clawos-sandbox", "claw")),
        *((user, SET_ZONE) for user in ("clawos-units", "clawos-power", "clawos-sandbox", "claw")),
        *((user, RENAME) for user in ("clawos-units", "clawos-power", "clawos-sandbox", "claw")),
        ("clawos-power", f"busctl call {LOGIND} ScheduleShutdown st dry-halt {IN_AN_HOUR}"),
        ("clawos-power", f"busctl call {LOGIND} CanHalt"),
        ("clawos-power", f"busctl call {LOGIND} TerminateUser u 1000"),
        ("clawos-power", f"busctl call {LOGIND} Inhibit ssss shutdown qa qa block"),
        ("clawos-power", f"busctl call {LOGIND} SetRebootToFirmwareSetup b true"),
        ("clawos-power", "systemctl --no-ask-password stop clawos-inference.service"),
        ("clawos-power", "systemctl --no-ask-password restart clawos-inference.service"),
        ("clawos-power", "systemctl --no-ask-password start rescue.target"),
        ("clawos-power", "systemd-run --no-ask-password --wait true"),
        ("clawos-settings", f"busctl call {TIMEDATED} SetTime xbb 0 false false"),
        ("clawos-settings", f"busctl call {TIMEDATED} SetLocalRTC bbb true false false"),
        ("clawos-settings", f"busctl call {TIMEDATED} SetNTP bb false false"),
        ("clawos-settings", f"busctl call {HOSTNAMED} SetPrettyHostname sb x false"),
        ("clawos-settings", f"busctl call {HOSTNAMED} SetLocation sb x false"),
        ("clawos-settings", "systemctl --no-ask-password restart clawos-inference.service"),
        ("clawos-settings", "systemd-run --no-ask-password --wait true"),
    ],
)
def test_users_of_the_tools_may_do_no_more(root: Run, user: str, command: str) -> None:
    done = root(as_user(user, command))
    assert done.status not in (0, 124), done.text
    refusals = ("denied", "not permitted", "interactive auth", "authentication required", "not authorized")
    assert any(words in done.text.lower() for words in refusals), done.text


def test_what_must_not_be_interrupted_is_not(root: Run) -> None:
    """On this guest too: only where the inhibitor is not heeded does the tool end it."""
    inhibit = "systemd-inhibit --what=shutdown --mode=block --who=qa --why='a long write' sleep infinity"
    root(f"systemd-run -q --unit=qa-work {inhibit}")
    try:
        root("until systemd-inhibit --list --no-legend | grep -q qa; do sleep 1; done", 60)
        for command in (POWER_OFF, RESTART):
            assert root(as_user("clawos-power", command)).status != 0
        refused = root(as_user("clawos-power", "/usr/lib/clawos/tools/power off"))
        assert refused.status == 1
        assert "this must not be interrupted: qa (a long write)" in refused.text
    finally:
        root("systemctl stop qa-work")
