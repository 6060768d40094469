"""What the kernel refuses in a sandbox's cgroup and nowhere else, whoever reads its records or nobody."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qa.conftest import Call, sandboxes_by
from qa.monitor.conftest import InCgroup, Run, put

FILE_OPEN, EXEC, CONNECT, MODULE, PTRACE, MOUNT, BIND, SOCKET, NAMESPACE = 1, 2, 3, 5, 6, 7, 8, 9, 10
"""enum hook"""

OPEN = "os.close(os.open({!r}, os.O_RDONLY))"
WRITE = "os.close(os.open({!r}, os.O_WRONLY))"
EXECUTE = "import subprocess; subprocess.run({!r}, check=False, capture_output=True)"
CONNECT_TO = """
s = socket.socket(socket.{0})
s.setblocking(False)
try:
    s.connect(({1!r}, {2}))
except (BlockingIOError, ConnectionRefusedError):
    pass
except OSError as error:
    if error.errno not in (101, 113): # no route: asked after the verdict
        raise
"""
SEND_TO = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.sendto(b"x", ({!r}, 53))
except OSError as error:
    if error.errno not in (101, 113):
        raise
"""
RECEIVE = """
s = socket.socket(socket.AF_UNIX)
s.connect("/run/test-pass.sock")
data, ancillary, flags, _ = s.recvmsg(1, 64)
if not ancillary or flags & socket.MSG_CTRUNC:
    raise PermissionError(1, "no descriptor came")
"""
MOUNT_CALL = "check(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)); check(libc.umount2(b'/mnt', 0))"
MOVE_MOUNT = """
tree = libc.syscall(428, -100, b'/usr', 1)
check(tree)
check(libc.syscall(429, tree, b'', -100, b'/mnt', 4))
check(libc.umount2(b'/mnt', 2))
"""
# Only marks it, for the time being: EAGAIN.
UNMOUNT = """
if libc.umount2(b'/run/test-bind', 4) and ctypes.get_errno() != 11:
    check(-1)
"""
ATTACH = """
child = os.fork()
if child == 0:
    import time
    time.sleep(60)
    os._exit(0)
try:
    check(libc.ptrace(16, child, 0, 0))
finally:
    os.kill(child, 9)
    os.waitpid(child, 0)
"""
LONG = """
os.chdir("/run/deep")
for _ in range(25):
    os.chdir("x" * 200)
os.close(os.open("file", os.O_RDONLY))
"""
MAKE_LONG = """python3 -I - <<'END'
import os
os.makedirs("/run/deep", exist_ok=True); os.chdir("/run/deep")
for _ in range(25):
    os.mkdir("x" * 200); os.chdir("x" * 200)
open("file", "w").close()
END
"""

# name: (act, hook, text of the verdict)
ACTS: dict[str, tuple[str, int, str | None]] = {
    "file": (OPEN.format("/etc/shadow"), FILE_OPEN, "/etc/shadow"),
    "file by another name": (OPEN.format("/run/../etc//shadow"), FILE_OPEN, "/etc/shadow"),
    "file by a link": (OPEN.format("/run/test-link"), FILE_OPEN, "/etc/shadow"),
    "file by /proc": (OPEN.format("/proc/self/root/etc/shadow"), FILE_OPEN, "/etc/shadow"),
    "file below": (OPEN.format("/etc/credstore/x"), FILE_OPEN, "/etc/credstore/x"),
    "directory": (OPEN.format("/etc/credstore"), FILE_OPEN, "/etc/credstore"),
    "host": (OPEN.format("/var/lib/test-state"), FILE_OPEN, "/var/lib/test-state"),
    "host by a bind mount": (
        OPEN.format("/run/test-bind/test-state"),
        FILE_OPEN,
        "/run/test-bind/test-state",
    ),
    "overlay's other side": (OPEN.format("/var/etc-upper"), FILE_OPEN, "/var/etc-upper"),
    "block device": (OPEN.format("/dev/vda"), FILE_OPEN, "/dev/vda"),
    "block device by another name": (OPEN.format("/run/test-disk"), FILE_OPEN, "/run/test-disk"),
    "character device": (OPEN.format("/dev/ptmx"), FILE_OPEN, "/dev/ptmx"),
    "kernel's log": (OPEN.format("/dev/kmsg"), FILE_OPEN, "/dev/kmsg"),
    "setting": (WRITE.format("/proc/sys/kernel/hostname"), FILE_OPEN, "/proc/sys/kernel/hostname"),
    "truncate": ("os.truncate('/proc/sys/kernel/domainname', 0)", FILE_OPEN, "/proc/sys/kernel/domainname"),
    "path too long": (LONG, FILE_OPEN, ""),
    "descriptor passed": (RECEIVE, FILE_OPEN, "/etc/shadow"),
    "program": (EXECUTE.format(["/usr/bin/kmod", "list"]), EXEC, "/usr/bin/kmod"),
    "program by a link": (EXECUTE.format(["/usr/sbin/modprobe", "-V"]), EXEC, "/usr/bin/kmod"),
    "IPv4": (CONNECT_TO.format("AF_INET", "169.254.169.254", 80), CONNECT, ""),
    "loopback": (CONNECT_TO.format("AF_INET", "127.0.0.1", 9), CONNECT, ""),
    "the proxy's address, another port": (CONNECT_TO.format("AF_INET", "198.19.255.1", 80), CONNECT, ""),
    "IPv6": (CONNECT_TO.format("AF_INET6", "2001:db8::1", 80), CONNECT, ""),
    "IPv4 as IPv6": (CONNECT_TO.format("AF_INET6", "::ffff:169.254.169.254", 80), CONNECT, ""),
    "datagram": (SEND_TO.format("169.254.169.254"), CONNECT, ""),
    "bind": ("socket.socket().bind(('127.0.0.1', 0))", BIND, ""),
    "socket family": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)", SOCKET, ""),
    "attach": (ATTACH, PTRACE, ""),
    "traceme": ("check(libc.ptrace(0, 0, 0, 0))", PTRACE, ""),
}

CONFINED: dict[str, tuple[str, int, str | None]] = {
    "mount": (MOUNT_CALL, MOUNT, ""),
    "move_mount": (MOVE_MOUNT, MOUNT, ""),
    "unmount": (UNMOUNT, MOUNT, ""),
    "user namespace": ("os.unshare(os.CLONE_NEWUSER)", NAMESPACE, ""),
}
"""What the set-up of a sandbox needs: refused once a filter is up."""

MAY = {
    "file beside": OPEN.format("/etc/passwd"),
    "name that begins the same": OPEN.format("/etc/shadow.test"),
    "directory beside": OPEN.format("/var/log"),
    "null": OPEN.format("/dev/null"),
    "to read a setting": OPEN.format("/proc/sys/kernel/hostname"),
    "exception": WRITE.format("/proc/sys/user/max_user_namespaces"),
    "program": EXECUTE.format(["/usr/bin/true"]),
    "the egress service": CONNECT_TO.format("AF_INET", "198.19.255.1", 8118),
    "Unix socket": "socket.socket(socket.AF_UNIX)",
    "disconnect": "s = socket.socket(2, 2); check(libc.connect(s.fileno(), bytes(16), 16))",
}

PASSER = """import array, os, socket
s = socket.socket(socket.AF_UNIX)
s.bind("/run/test-pass.sock"); s.listen(4)
shadow = os.open("/etc/shadow", os.O_RDONLY)
while True:
    c, _ = s.accept()
    c.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [shadow]))])
    c.close()
"""
PREPARE = """ln -sf /etc/shadow /run/test-link; echo x > /var/lib/test-state
mkdir -p /run/test-bind /etc/credstore
echo x > /etc/credstore/x; cp /etc/hostname /etc/shadow.test; mount --bind /var/lib /run/test-bind
mount -o remount,dev /run; mknod /run/test-disk b $(lsblk -dno MAJ:MIN /dev/vda | tr : ' ')
"""
CLEAN = """systemctl revert clawos-isolator; umount /run/test-bind; systemctl stop test-pass
rm -rf /run/deep /run/test-* /var/lib/test-state /etc/shadow.test /etc/credstore/x
"""


@pytest.fixture(scope="session", autouse=True)
def _things(root: Run) -> Any:
    assert root("systemctl is-active clawos-monitor-load").text == "active\n"
    done = root(f"set -e; {PREPARE}{MAKE_LONG}")
    assert done.status == 0, done.stderr
    # The unit's own rules of devices would answer before ours.
    root(
        "systemctl set-property --runtime clawos-isolator 'DeviceAllow=/dev/vda r' 'DeviceAllow=/dev/kmsg r'"
    )
    put(root, "/run/test-pass.py", PASSER)
    root("systemd-run -q --unit=test-pass python3 -I /run/test-pass.py; sleep 1")
    yield
    root(CLEAN)


@pytest.fixture(scope="session")
def outcomes(in_cgroup: InCgroup) -> dict[str, Any]:
    """All at once: a guest without KVM takes a second for each start of Python."""
    told = in_cgroup({name: act for name, (act, _, _) in ACTS.items()})
    confined = in_cgroup({name: act for name, (act, _, _) in CONFINED.items()}, confined=True)
    return told | confined


@pytest.mark.parametrize("name", ACTS | CONFINED)
def test_act_fails_in_a_sandbox_and_works_outside(outcomes: dict[str, Any], name: str) -> None:
    _, hook, text = (ACTS | CONFINED)[name]
    outside, inside, records = outcomes[name]
    assert outside == "ok", "positive control"
    assert inside == "EPERM"
    assert [record["hook"] for record in records] == [hook], "one verdict, told once"
    assert records[0]["errno"] == 1
    assert records[0]["text"] == text


def test_the_dynamic_linker_goes_no_way_round(root: Run) -> None:
    """Called as a program, it maps what may not be executed."""
    act = "/usr/lib64/ld-linux-x86-64.so.2 /usr/bin/kmod list"
    assert root(act).status == 0, "positive control"
    cgroup = "/sys/fs/cgroup/system.slice/clawos-isolator.service/call-00000000000000aa"
    done = root(
        f"mkdir {cgroup}; sh -c 'echo $$ >{cgroup}/cgroup.procs; exec {act}'; s=$?; rmdir {cgroup}; exit $s"
    )
    assert done.status != 0
    assert b"failed to map segment" in done.stderr


def test_what_is_allowed_stays_allowed(in_cgroup: InCgroup) -> None:
    told = in_cgroup(MAY, confined=True)
    assert {name: inside for name, (_, inside, _) in told.items()} == dict.fromkeys(MAY, "ok")
    assert all(records == [] for _, _, records in told.values())


def test_the_set_up_of_a_sandbox_may_mount(in_cgroup: InCgroup) -> None:
    told = in_cgroup({name: act for name, (act, _, _) in CONFINED.items() if name != "unmount"})
    assert {name: inside for name, (_, inside, _) in told.items()} == dict.fromkeys(told, "ok")


def test_a_call_may_be_given_a_stricter_set(in_cgroup: InCgroup) -> None:
    quarantine = 1
    told = in_cgroup(MAY, confined=True, set=quarantine)
    assert {name: inside for name, (_, inside, _) in told.items()} == dict.fromkeys(told, "EPERM")
    assert {name: outside for name, (outside, _, _) in told.items()} == dict.fromkeys(told, "ok")


def test_a_set_that_there_is_not_forbids_all(in_cgroup: InCgroup) -> None:
    told = in_cgroup({"open": OPEN.format("/etc/passwd"), "exec": MAY["program"]}, set=15)
    assert [inside for _, inside, _ in told.values()] == ["EPERM", "EPERM"]


def test_a_cgroup_below_a_sandboxs_is_one_too(root: Run) -> None:
    leaf = "/sys/fs/cgroup/system.slice/clawos-isolator.service/call-00000000000000bb"
    act = f"sh -c 'echo $$ >{leaf}/below/cgroup.procs; exec head -c 1 /etc/shadow'"
    done = root(f"mkdir -p {leaf}/below; {act}; s=$?; rmdir {leaf}/below {leaf}; exit $s")
    assert done.status == 1
    assert b"Operation not permitted" in done.stderr


def test_the_isolator_itself_is_none(root: Run) -> None:
    supervisor = "/sys/fs/cgroup/system.slice/clawos-isolator.service/supervisor/cgroup.procs"
    assert root(f"sh -c 'echo $$ >{supervisor}; exec head -c 1 /etc/shadow'").status == 0


LOOP = """python3 -I - <<'END'
import os, pathlib, time
leaf = pathlib.Path("/sys/fs/cgroup/system.slice/clawos-isolator.service/call-00000000000000cc")
leaf.mkdir()
(leaf / "cgroup.procs").write_text("0")
refused = opened = 0
end = time.monotonic() + 30
while time.monotonic() < end:
    try:
        os.close(os.open("/etc/shadow", os.O_RDONLY))
        opened += 1
    except PermissionError:
        refused += 1
print(opened, refused > 1000)
END
"""


def test_no_gap_opens_while_the_monitor_is_killed_and_restarts(root: Run) -> None:
    put(root, "/run/test-loop.sh", LOOP)
    output = "-p StandardOutput=file:/run/test-loop.out"
    root(f"systemd-run -q --unit=test-loop {output} sh /run/test-loop.sh; sleep 2")
    for _ in range(3):
        assert (
            root("systemctl restart clawos-monitor; sleep 1; systemctl kill -s KILL clawos-monitor").status
            == 0
        )
    root("systemctl stop clawos-monitor")  # the ring has one reader
    root("while systemctl is-active -q test-loop; do sleep 1; done")
    assert root("cat /run/test-loop.out").text == "0 True\n"
    root("rmdir /sys/fs/cgroup/system.slice/clawos-isolator.service/call-00000000000000cc")


def test_a_full_ring_denies_all_the_same(root: Run, in_cgroup: InCgroup) -> None:
    put(root, "/run/test-loop.sh", LOOP.replace("> 1000", "> 100").replace("+ 30", "+ 60"))
    done = root(
        "sh /run/test-loop.sh; rmdir /sys/fs/cgroup/system.slice/clawos-isolator.service/call-*cc", 300
    )
    assert done.text == "0 True\n", done.stderr
    told = in_cgroup({"file": OPEN.format("/etc/shadow")})
    assert told["file"][:2] == ["ok", "EPERM"]


PROFILE = """profile test-enforce {
  file, network, capability, signal, ptrace, unix, mount,
  change_profile,
  audit /etc/shadow r,
}
"""


def test_apparmor_permits_and_ebpf_denies_each_said_once(root: Run, in_cgroup: InCgroup) -> None:
    put(root, "/run/test-profile", PROFILE)
    loaded = root("apparmor_parser -r /run/test-profile 2>&1")
    assert loaded.status == 0, loaded.text
    try:
        root("dmesg --clear")
        told = in_cgroup({"file": OPEN.format("/etc/shadow")}, profile="test-enforce")
        outside, inside, records = told["file"]
        assert (outside, inside) == ("ok", "EPERM")
        assert len(records) == 1
        lines = [
            line for line in root("dmesg").text.splitlines() if "test-enforce" in line and "shadow" in line
        ]
        assert len(lines) == 2, "permitted once outside, once inside"
        assert all('apparmor="AUDIT"' in line for line in lines), lines
    finally:
        root("apparmor_parser -R /run/test-profile")


@pytest.mark.parametrize("backend", ["launcher", "bubblewrap"])
def test_a_real_sandbox_works_and_is_held(root: Run, call: Call, backend: str) -> None:
    with sandboxes_by(backend, root):
        assert call("shell.run", command="head -c 4 /etc/passwd; echo x >/tmp/x; cat /tmp/x").exit_code == 0
        denied = call("shell.run", command="/usr/bin/kmod list")
        assert denied.exit_code == 126, denied
        assert "Operation not permitted" in denied.stderr
        assert call("python.run", code="print(1)").outcome == (0, "")


def test_verdicts_are_counted_by_rule(root: Run, in_cgroup: InCgroup) -> None:
    before = hits(root)
    in_cgroup({"file": OPEN.format("/etc/shadow")})
    after = hits(root)
    assert after["path:default:/etc/shadow"] == before["path:default:/etc/shadow"] + 1


HITS = """python3 -I - <<'END'
import json, struct, sys
sys.path.insert(0, "/run")
import ctypes
from pathlib import Path
from qa.monitor import in_cgroup as tools
from clawos.monitor import enforce, fill, protect
fd = tools.opened(tools.PINS / "monitor" / "enforce_hits", 8)
room = int(Path("/sys/devices/system/cpu/possible").read_text().split("-")[-1]) + 1
value = ctypes.create_string_buffer(8 * room)
told = {}
for number, name in fill.rule_names(enforce.load(protect.POLICY)).items():
    key = ctypes.create_string_buffer(struct.pack("=I", number), 4)
    tools.bpf(1, struct.pack("=I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0))
    told[name] = sum(struct.unpack(f"={room}Q", value.raw))
print(json.dumps(told))
END
"""


def hits(root: Run) -> dict[str, int]:
    done = root(HITS)
    assert done.status == 0, done.stderr
    told: dict[str, int] = json.loads(done.text)
    return told
