"""What a booted appliance must look like before anybody asks it anything."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from qa.vm.machine import Output

Run = Callable[..., Output]

# Messages at priority err that are known and harmless, each with its reason.
JOURNAL_ERRORS_ALLOWED = {
    # udev's rules and systemd ask the initrd for drivers that only the root has, and that nothing there needs
    r"^ctx=0x\w+ path=/lib/modules/\S+ error=No such file",
}


def test_no_unit_failed(root: Run) -> None:
    assert root("systemctl --failed --no-legend").text == ""


def test_system_is_running(root: Run) -> None:
    assert root("systemctl is-system-running").text.strip() == "running"


def test_journal_has_no_errors(root: Run) -> None:
    lines = root("journalctl -p err -b --no-pager -q -o cat").text.splitlines()
    unknown = [line for line in lines if not any(re.search(p, line) for p in JOURNAL_ERRORS_ALLOWED)]
    assert unknown == []


def test_no_ordering_cycle(root: Run) -> None:
    assert "ordering cycle" not in root("journalctl -b --no-pager").text


def test_root_is_read_only_erofs(root: Run) -> None:
    assert root("findmnt -no FSTYPE,OPTIONS /").text.startswith("erofs ro")
    assert root("touch /usr/x 2>&1").status != 0
    assert root("mount -o remount,rw / && touch /usr/x").status != 0


def test_state_partition_fills_the_disk_and_runs_nothing(root: Run) -> None:
    options = root("findmnt -no FSTYPE,OPTIONS /var").text
    assert options.startswith("ext4")
    assert {"nosuid", "nodev", "noexec"} <= set(options.split()[1].split(","))
    assert int(root("df --output=size -B1 /var | tail -1").text) > 2 << 30
    assert root("cp /usr/bin/true /var/tmp/t && /var/tmp/t; rm -f /var/tmp/t; false").status != 0


def test_lsm_stack_and_lockdown(root: Run) -> None:
    lsm = root("cat /sys/kernel/security/lsm").text.split(",")
    assert {"landlock", "lockdown", "yama", "apparmor", "bpf"} <= set(lsm)
    assert "[integrity]" in root("cat /sys/kernel/security/lockdown").text
    assert root("dd if=/dev/mem of=/dev/null bs=1 count=1 2>&1").status != 0
    assert "module.sig_enforce=1" in root("cat /proc/cmdline").text


def test_sysctls_are_as_asked(root: Run) -> None:
    wrong = root(
        r"""sed -n 's/^\([a-z][^ ]*\) = \(.*\)/\1 \2/p' /usr/lib/sysctl.d/60-clawos.conf |
        while read -r name asked; do
            got=$(sysctl -n "$name"); [ "$got" = "$asked" ] || echo "$name $asked $got"
        done"""
    ).text
    assert wrong == ""


def test_tpm_is_there(root: Run) -> None:
    assert root("test -c /dev/tpmrm0").status == 0


def test_nothing_listens_on_the_network(root: Run) -> None:
    assert root("ss -Hlntu").text == ""
    assert root("ss -Hlw").text == ""
    assert root("ss -Hl --vsock").text == ""


def test_nobody_has_a_default_password(root: Run) -> None:
    usable = root("awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow").text
    assert usable == ""


def test_shell_of_the_user_is_listed(root: Run) -> None:
    assert root("getent passwd claw | cut -d: -f7").text.strip() == "/usr/bin/clawsh"
    assert "/usr/bin/clawsh" in root("cat /etc/shells").text.splitlines()


def test_serial_console_asks_for_a_login(root: Run) -> None:
    assert root("systemctl is-active serial-getty@ttyS0").text.strip() == "active"


def test_memory_used_when_idle(root: Run) -> None:
    used_mib = int(root("free -m | awk '/^Mem/ {print $3}'").text)
    # Of these the monitor is 40: 8 its ring, 18 its own, the rest programs, maps and what they share.
    assert used_mib <= 390


def test_specs_match_their_hashes(root: Run) -> None:
    assert root("systemctl show -P Result clawos-manifest.service").text.strip() == "success"
    assert root("systemctl show -P ActiveState clawos-manifest.service").text.strip() == "active"


def test_doctor_finds_nothing_wrong(root: Run) -> None:
    done = root("claw doctor 2>&1")
    assert done.status == 0, done.text


@pytest.mark.parametrize("directory", ["/etc", "/var", "/usr", "/home"])
def test_no_world_writable_files(root: Run, directory: str) -> None:
    found = root(
        f"find {directory} -xdev -type f -perm -0002 -o -xdev -type d -perm -0002 ! -perm -1000"
    ).text
    assert found == ""


def test_set_uid_programs_are_the_known_ones(root: Run) -> None:
    found = set(root("find /usr -xdev -perm /6000 -type f").text.split())
    assert found <= {
        "/usr/bin/su",
        "/usr/bin/passwd",
        "/usr/bin/chage",
        "/usr/bin/expiry",
        "/usr/bin/mount",
        "/usr/bin/umount",
        "/usr/bin/newgrp",
        "/usr/bin/gpasswd",
        "/usr/bin/chsh",
        "/usr/bin/chfn",
        "/usr/sbin/unix_chkpwd",
        "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
        "/usr/lib/polkit-1/polkit-agent-helper-1",
        "/usr/bin/pkexec",
    }
