"""Once armed: who may change what the kernel runs of eBPF."""

from __future__ import annotations

import json

import pytest

from qa.monitor.conftest import InCgroup, Run, push

FORBIDDEN = (
    "load",
    "load XDP",
    "load types",
    "attach to a cgroup",
    "detach from a cgroup",
    "attach to a tracepoint",
    "make a link",
    "change a link",
    "detach a link",
    "pin",
    "run",
    "write the rules",
    "write the sets",
    "write where the isolator is",
    "write the guard",
    "write the guard's maps",
    "write XDP's rules",
    "write what is recorded",
    "open the rules to write",
)
ALLOWED = ("make a map", "open the ring", "open a call's sets", "read the rules", "look at programs")
PINS = "/sys/fs/bpf/clawos"


def commands(root: Run) -> dict[str, str]:
    push(root, "in_cgroup", "bpf_commands")
    done = root("python3 -I /run/qa/monitor/bpf_commands.py")
    assert done.status == 0, done.stderr.decode()
    told: dict[str, str] = json.loads(done.text)
    return told


@pytest.fixture(scope="session")
def outcomes(root: Run) -> dict[str, str]:
    return commands(root)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_root_may_not(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == "EPERM"


@pytest.mark.parametrize("name", ALLOWED)
def test_root_may(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == "ok"


def test_before_it_is_armed_all_of_it_works(unarmed: Run) -> None:
    """Positive control, on a boot without the monitor: the kernel minds nothing but wrong arguments."""
    told = commands(unarmed)
    assert told["load"] == told["load XDP"] == "ok"
    of_ours = [name for name in FORBIDDEN if name.startswith(("write", "open"))]
    refused = {name for name in FORBIDDEN if told[name] == "EPERM" and name not in of_ours}
    assert refused == set()


PIN_ACTS = {
    "remove a link's pin": f"rm {PINS}/links/enforce_file_open",
    "remove a map's pin": f"rm {PINS}/maps/enforce_paths",
    "remove XDP's pin": f"rm {PINS}/egress_xdp",
    "remove all": f"rm -rf {PINS}",
    "move": f"mv {PINS}/links /sys/fs/bpf/elsewhere",
    "move over": f"mv {PINS}/uplink_xdp {PINS}/egress_xdp",
    "change the mode": f"chmod 666 {PINS}/monitor/events",
    "change the owner": f"chown 1000 {PINS}/monitor/guest_sets",
    "unmount": "umount /sys/fs/bpf",
    "unmount lazily": "umount -l /sys/fs/bpf",
    "unmount from below": "umount -l /sys",
    "unmount all": "umount -l /",
    "move the mount": "mkdir -p /run/test-m && mount --move /sys/fs/bpf /run/test-m",
    "move what it is on": "mkdir -p /run/test-m && mount --move /sys /run/test-m",
    "trace PID 1": 'python3 -I -c "import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, 1, 0, 0) != 0)"',
    "write PID 1's memory": "exec 3<>/proc/1/mem",
}


@pytest.mark.parametrize("name", PIN_ACTS)
def test_pins_and_pid_1_are_out_of_reach(root: Run, name: str) -> None:
    before = root(f"ls -lR {PINS}").text
    assert before.count("\n") > 20
    done = root(f"{{ {PIN_ACTS[name]}; }} 2>&1")
    assert done.status != 0, done.text
    assert root(f"ls -lR {PINS}").text == before


def test_another_bpf_file_system_is_anybodys(root: Run) -> None:
    """Positive control: it is not all unlinking or unmounting that is refused."""
    script = "set -e; mkdir -p /run/test-b; mount -t bpf none /run/test-b"
    script += "; mkdir /run/test-b/x; chmod 700 /run/test-b/x"
    script += "; mv /run/test-b/x /run/test-b/y; rmdir /run/test-b/y; umount /run/test-b"
    script += (
        "; mkdir -p /run/test-c /run/test-d; mount -t tmpfs none /run/test-c; mount --bind /usr /run/test-d"
    )
    script += "; umount /run/test-d; umount -l /run/test-c"
    done = root(script)
    assert done.status == 0, done.stderr


def test_pid_1_keeps_the_links_as_well(root: Run) -> None:
    links = int(root(f"ls {PINS}/links | wc -l").text)
    assert int(root("systemctl show -P NFileDescriptorStore clawos-monitor-load").text) == links > 0


@pytest.mark.parametrize("verb", ["stop", "restart", "clean --what=fdstore"])
def test_the_unit_that_keeps_them_is_not_stopped(root: Run, verb: str) -> None:
    assert root(f"systemctl {verb} clawos-monitor-load").status != 0
    assert root("systemctl is-active clawos-monitor-load").text == "active\n"


def test_a_second_start_changes_nothing(root: Run) -> None:
    before = root(f"ls -lR {PINS}").text
    done = root("python3 -I -m clawos.monitor.load")
    assert (done.status, done.text) == (0, "clawos-monitor-load: all is in place already\n")
    assert root(f"ls -lR {PINS}").text == before


CONNECT = "import socket; s = socket.socket(2, 2); s.connect(('127.0.0.1', 9)); s.send(b'x')"
FILTERS = {
    "IPAddressDeny=any": CONNECT,
    "SocketBindDeny=any": "import socket; socket.socket().bind(('127.0.0.1', 0))",
    "RestrictFileSystems=~ext4": "open('/var/lib/systemd/random-seed')",
    "RestrictNetworkInterfaces=~lo": CONNECT,
    "DevicePolicy=closed": "open('/dev/kmsg')",
}
REFUSED_BY_LOCKDOWN = {
    ("confidentiality", "RestrictFileSystems=~ext4"): "bpf-restrict-fs: Failed to load BPF object"
}
"""systemd's own program for it reads the kernel's memory: it does not load, and there is no guard yet."""


@pytest.mark.parametrize("setting", FILTERS)
def test_systemd_still_filters_its_units(root: Run, lockdown: str, setting: str) -> None:
    run = 'systemd-run -q --wait --collect --pipe {} /usr/bin/python3 -I -c "{}"'
    act = FILTERS[setting]
    control = root(run.format("", act))
    assert control.status == 0, control.stderr
    held = root(run.format(f"-p {setting}", act))
    if (lockdown, setting) in REFUSED_BY_LOCKDOWN:
        journal = root("journalctl -b -t systemd -o cat").text
        told = journal.index(REFUSED_BY_LOCKDOWN[lockdown, setting])
        assert told < journal.index("Starting clawos-monitor-load.service")
        assert held.status == 0
        return
    assert held.status == 1, held.stderr
    assert b"PermissionError" in held.stderr, "by the filter, and by nothing else"


def test_pid_1_may_be_executed_anew(root: Run) -> None:
    kept = "systemctl show -P NFileDescriptorStore clawos-monitor-load"
    before = root(kept).text
    assert root("systemctl daemon-reexec && systemctl is-active dbus").status == 0
    assert root(kept).text == before != "0\n"


def test_a_refusal_is_told(root: Run, in_cgroup: InCgroup) -> None:
    """As a verdict in the ring, with the command."""
    on_bpf = 4
    load = (
        "code = ctypes.create_string_buffer(bytes.fromhex('b7000000000000009500000000000000'), 16);"
        "attr = ctypes.create_string_buffer((1).to_bytes(4, 'little') + (2).to_bytes(4, 'little')"
        " + 2 * ctypes.addressof(code).to_bytes(8, 'little'), 128);"
        "check(libc.syscall(321, 5, attr, 128))"
    )
    outside, inside, records = in_cgroup({"load": load})["load"]
    assert (outside, inside) == ("EPERM", "EPERM")
    assert [(record["hook"], record["port"]) for record in records] == [(on_bpf, 5)]
