"""A home is the one place where an attacker may write, and the host has its hands in it too."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from qa.conftest import tool_calls
from qa.escape.guest import Guest, Run
from qa.vm.machine import Channel

HOMES = "/var/lib/clawos/isolator/home"
HOME = f"{HOMES}/1000"
SECRET = "/var/lib/clawos/agent"
# Where the sandbox's root has its mounts, as names in the home, each leading to where it would hurt.
TARGETS = "usr etc tmp dev proc home var run bin lib lib64 sbin"
STAMP = "/run/clawos-escape-stamp"
# What changed on the host since, but for what the machine writes by itself.
CHANGED = (
    f"find /etc /var /home /root /run /tmp -xdev -newer {STAMP} ! -path '/var/log/*' ! -path '{SECRET}*'"
    " ! -path '/run/systemd*' ! -path '/run/udev*' ! -path '/run/log*' ! -path '/var/lib/systemd*'"
    " ! -path /run ! -path /tmp ! -path '/run/user*'"
)


@pytest.fixture(autouse=True)
def home(guest: Guest) -> Iterator[None]:
    """Empty before and after."""
    assert guest.inside("rm -rf ~/* ~/.[!.]*").exit_code == 0
    yield
    guest.root(f"find {HOME} -mindepth 1 -delete; rm -f {STAMP}")


def test_links_at_mount_targets_lead_nowhere(guest: Guest, root: Run) -> None:
    """CVE-2026-87766 and its kin: an earlier call plants them, the set-up of a later one must not follow."""
    plant = (
        f'for t in {TARGETS}; do ln -s {SECRET} ~/$t; done; ln -s /etc ~/claw; ln -s / ~/"$(printf "a\\nb")"'
    )
    assert guest.inside(plant).exit_code == 0
    root(f"touch {STAMP}; sleep 1")
    before = root(f"ls -la {SECRET}").text
    for cwd in ("/home/claw", "/"):
        ran = guest.inside(f"cd {cwd} && ls -ld /etc /usr /tmp /proc && test ! -e ~/etc/. && echo whole")
        assert ran.stdout.endswith("whole\n"), ran
    assert root(CHANGED).text == ""
    assert root(f"ls -la {SECRET}").text == before
    try:
        # the control: who follows links as he makes directories is led outside
        assert root(f"mkdir -p {HOME}/claw/clawos-escape").status == 0
        assert "/etc/clawos-escape" in root(CHANGED).text
    finally:
        root("rmdir /etc/clawos-escape")


def test_home_that_is_a_link_is_refused(guest: Guest, root: Run) -> None:
    assert root(f"mv {HOME} {HOMES}/away && ln -s /etc {HOME}").status == 0
    try:
        ran = guest.inside("true")
        assert "SandboxRefused" in ran.refused, ran
        assert "home" in ran.refused
    finally:
        root(f"rm {HOME} && mv {HOMES}/away {HOME}")
    assert guest.inside("true").outcome == (0, ""), "positive control"


@pytest.mark.parametrize("target", [SECRET, "/proc/1/cwd", "/proc/self/fd/0/..", "/nowhere"])
def test_working_directory_that_is_a_link_leads_nowhere(guest: Guest, channel: Channel, target: str) -> None:
    here = tool_calls(channel, cwd="/home/claw/here")
    assert guest.inside(f"ln -s {target} ~/here").exit_code == 0
    ran = here("shell.run", command="pwd -P; ls -a")
    assert "SandboxRefused" in ran.refused or ran.stdout.startswith("/\n"), ran
    assert "agent.db" not in ran.stdout
    assert guest.inside("rm ~/here && mkdir ~/here").exit_code == 0
    assert here("shell.run", command="pwd -P").stdout == "/home/claw/here\n", "positive control"


def test_home_of_another_user_is_not_there(guest: Guest, root: Run, channel: Channel) -> None:
    other = tool_calls(channel, home_owner=65534, cwd="/home/nobody")
    try:
        assert other("shell.run", command="echo theirs >~/secret && cat ~/secret").stdout == "theirs\n"
        assert root(f"cat {HOMES}/65534/secret").text == "theirs\n", "positive control"
        tried = "ls /home; cat /home/nobody/secret ../65534/secret ~/../65534/secret ~/link/65534/secret"
        ran = guest.inside(f"ln -s .. ~/link; {tried}")
        assert ran.stdout == "claw\n"
        assert ran.exit_code != 0
    finally:
        root(f"rm -rf {HOMES}/65534")


def test_archive_with_steps_up_stays_inside(guest: Guest, root: Run) -> None:
    name = "../" * 8 + "etc/clawos-escape"
    make = (
        "import io, tarfile; archive = tarfile.open('a.tar', 'w'); "
        f"archive.addfile(tarfile.TarInfo({name!r}), io.BytesIO()); archive.close()"
    )
    assert guest.inside(f"cd && python3 -c {shlex.quote(make)}").exit_code == 0
    ran = guest.inside("cd && tar -Pxf a.tar")
    assert ran.exit_code != 0
    assert "Read-only file system" in ran.stderr
    assert root("test -e /etc/clawos-escape").status == 1
    control = root(f"cd {HOME} && tar -Pxf a.tar; rm /etc/clawos-escape")
    assert control.status == 0, "positive control"


def test_what_is_planted_does_not_run_on_the_host(guest: Guest, root: Run) -> None:
    plant = "cd && printf '#!/bin/sh\\necho ran\\n' >run && cp /usr/bin/true . && chmod 755 run true"
    assert guest.inside(plant).exit_code == 0
    for program in ("run", "true"):
        assert root(f"{HOME}/{program}").status == 126
        assert root(f"cp {HOME}/{program} /tmp/p && /tmp/p; s=$?; rm /tmp/p; exit $s").status == 0, "control"
    options = root(f"findmnt -no OPTIONS {HOMES}").text.split(",")
    assert {"nosuid", "nodev", "noexec"} <= set(options)
    assert guest.inside("cd && chmod 4755 run").exit_code != 0
    assert root(f"find {HOME} -perm /6000").text == ""


def test_odd_things_in_a_home_stop_nobody(guest: Guest, root: Run) -> None:
    plant = """
import os, socket
os.chdir(os.environ["HOME"])
os.mkdir("many")
for n in range(3000): os.close(os.open(f"many/{n}", os.O_CREAT))
os.symlink("loop", "loop")
os.symlink("/dev/zero", "endless")
os.mkdir(b"\\xff\\n\\x1b[2J")
socket.socket(socket.AF_UNIX).bind("socket")
os.chmod("many", 0)
for _ in range(10): os.mkdir("d" * 200); os.chdir("d" * 200)
"""
    assert guest.call("python.run", code=plant).outcome == (0, "")
    assert guest.inside("echo fine").stdout == "fine\n"
    found = root(f"find {HOME} -type f | wc -l; find {HOME} -type d | wc -l").text.split()
    assert [int(n) for n in found] >= [3000, 10], "positive control: it is all there"
    assert root("systemctl restart clawos-isolator").status == 0
    assert guest.inside("chmod 700 ~/many; echo fine").stdout == "fine\n"
