"""The sandbox, for real: what a program inside can and cannot do; each "cannot" works outside."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawos.isolator import launcher as launcher_module
from clawos.isolator.bubblewrap import Bubblewrap
from clawos.isolator.config import Config
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.ids import host_ids
from clawos.isolator.launcher import Launcher
from clawos.isolator.planner import Planner
from clawos.isolator.service import Isolator
from clawos.isolator.spec import parse
from clawos.isolator.wire import encode

from .conftest import Ran, Run, by_launcher, finish, read_all, spec_text
from .rig import Rig

pytestmark = pytest.mark.processes

Sh = Callable[..., Awaitable[Ran]]
SANDBOX = pwd.getpwnam("clawos-sandbox")


def null() -> int:
    return os.open(os.devnull, os.O_RDONLY)


async def test_exit_code_comes_back(run: Run, sh: Sh) -> None:
    assert (await run("/usr/bin/true")).exit_code == 0
    ran = await sh("exit 42")
    assert (ran.exit_code, ran.result["signal"], ran.result["limit"]) == (42, None, None)


async def test_signal_comes_back(sh: Sh) -> None:
    ran = await sh("kill -TERM $$")
    assert (ran.exit_code, ran.result["signal"]) == (None, 15)


async def test_result_tells_what_it_cost(sh: Sh) -> None:
    result = (await sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")).result
    assert 0 < result["cpu_s"] <= result["wall_s"] * 2
    assert result["peak_memory_bytes"] > 100_000
    assert result["landlock_abi"] >= 6


async def test_output_and_errors_are_apart(sh: Sh) -> None:
    ran = await sh("echo out; echo err >&2")
    assert (ran.stdout, ran.stderr) == ("out\n", "err\n")


async def test_is_an_ordinary_user(sh: Sh, backend: str) -> None:
    ran = await sh("id -u; id -g; id -G; head -1 /proc/self/uid_map")
    uid, gid = str(SANDBOX.pw_uid), str(SANDBOX.pw_gid)
    *inside, outside, count = ran.stdout.split()
    assert (inside, count) == ([uid, gid, gid, uid], "1")
    if (
        backend == "launcher"
    ):  # around bubblewrap's namespace is another one, which alone can be seen from here
        assert int(outside) > 0x70000000


async def test_each_call_has_an_id_of_its_own_outside(isolator: Isolator) -> None:
    """But where files stay or somebody asks who it is: those know the user that is named."""
    specs: list[dict[str, Any]] = [{}, {}, {"home": "write", "home_owner": 0}]
    calls = [
        await isolator.run(spec_text("/usr/bin/sleep", "1011", **spec), null(), ":1.1") for spec in specs
    ]
    found = await running("sleep\0001011", len(calls))
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in found}
    assert len(owners) == 3
    assert SANDBOX.pw_uid in owners
    assert all(uid == SANDBOX.pw_uid or uid > 0x70000000 for uid in owners)
    isolator.vanished(":1.1")
    for call in calls:
        await finish(call)


async def test_an_id_comes_back_when_its_call_is_over(
    sh: Sh, sandbox: Launcher | Bubblewrap, isolator: Isolator
) -> None:
    free = len(sandbox.uids)
    await sh("true")
    with pytest.raises(SandboxRefused):
        await isolator.run(spec_text("/usr/bin/no-such-program"), null(), ":1.1")
    with pytest.raises(SandboxRefused):
        await isolator.run(spec_text("/usr/bin/true", cwd="/nowhere"), null(), ":1.1")
    assert len(sandbox.uids) == free


@by_launcher
async def test_pid_one_is_another_user_without_privileges(isolator: Isolator) -> None:
    call = await isolator.run(spec_text("/usr/bin/sleep", "1012"), null(), ":1.1")
    (worker,) = await running("sleep\0001012", 1)
    status = Path(f"/proc/{worker}/status").read_text()
    init = int(status.split("PPid:\t")[1].split()[0])
    rows = dict(row.split(":\t", 1) for row in Path(f"/proc/{init}/status").read_text().splitlines())
    assert rows["NSpid"].split()[-1] == "1"
    assert set(rows["Uid"].split()) == {str(0x70000000)}
    assert all(int(rows[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    isolator.vanished(":1.1")
    await finish(call)


@by_launcher
async def test_no_user_namespace_can_be_made_even_without_a_filter(sh: Sh) -> None:
    assert (await sh("cat /proc/sys/user/max_user_namespaces")).stdout == "0\n"
    assert int(Path("/proc/sys/user/max_user_namespaces").read_text()) > 0


async def test_every_fence_is_up(sh: Sh, backend: str) -> None:
    status = dict(line.split(":\t", 1) for line in (await sh("cat /proc/self/status")).stdout.splitlines())
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    filters = {"launcher": "1", "bubblewrap": "2"}[backend]  # see confine/set_id.c
    assert (status["NoNewPrivs"], status["Seccomp"], status["Seccomp_filters"]) == ("1", "2", filters)


async def test_every_namespace_is_its_own(sh: Sh) -> None:
    names = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
    inside = (await sh("cd /proc/self/ns && readlink " + " ".join(names))).stdout.split()
    assert len(inside) == len(names)
    for name, link in zip(names, inside, strict=True):
        assert link != str(Path(f"/proc/self/ns/{name}").readlink())


async def test_only_loopback_and_that_is_down(sh: Sh) -> None:
    rows = (
        await sh("tail -n +3 /proc/net/dev; cat /proc/net/route; cat /proc/net/if_inet6")
    ).stdout.splitlines()
    assert [row.split(":")[0].strip() for row in rows if ":" in row] == ["lo"]
    assert len(Path("/proc/net/dev").read_text().splitlines()) > 3, "outside there is more"


async def test_only_the_standard_streams_are_open(sh: Sh) -> None:
    leaked = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        ran = await sh("exec /usr/bin/ls /proc/self/fd")
    finally:
        os.close(leaked)
    assert ran.stdout.split() == ["0", "1", "2", "3"]  # 3 is ls's own look at the directory


async def test_host_files_are_not_there(sh: Sh, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    ran = await sh(f"cat {secret}; ls -d /root /var/lib /sys /boot /srv /etc/shadow")
    assert ran.stdout == ""
    assert ran.exit_code != 0
    assert secret.read_text() == "x"


async def test_walking_up_ends_at_the_sandbox_root(sh: Sh) -> None:
    ran = await sh("cd ../../../../../..; pwd; ls; ls /proc/1/root/ /proc/1/cwd/ 2>/dev/null")
    links = [name for name in ("bin", "lib", "lib32", "lib64", "sbin") if Path("/", name).is_symlink()]
    assert ran.stdout.split() == [
        "/",
        *sorted(["dev", "etc", "home", "proc", "run", "tmp", "usr", "var", *links]),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/usr/x",
        "/etc/x",
        "/x",
        "/dev/x",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/run/x",
    ],
)
async def test_nothing_but_tmp_can_be_written(sh: Sh, path: str) -> None:
    ran = await sh(f"echo x > {path}")
    assert ran.exit_code == 2
    assert "Read-only" in ran.stderr or "denied" in ran.stderr


async def test_tmp_is_private_and_bounded(sh: Sh) -> None:
    ran = await sh("echo x > /tmp/a && cat /tmp/a; head -c 30000000 /dev/zero > /tmp/big")
    assert ran.stdout == "x\n"
    assert "No space left" in ran.stderr
    assert not Path("/tmp/a").exists()
    assert (await sh("ls -A /tmp")).stdout == ""


async def test_tmp_runs_nothing(sh: Sh) -> None:
    ran = await sh("cp /usr/bin/true /tmp/t; chmod 755 /tmp/t; /tmp/t")
    assert ran.exit_code == 126


async def test_a_file_cannot_grow_past_the_quota(sh: Sh) -> None:
    ran = await sh("head -c 70000000 /dev/zero > big; stat -c %s big", home="write", home_owner=0)
    assert int(ran.stdout) <= 67_108_864


PROBE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *[ctypes.c_long(a) for a in arguments])
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""
CLONE_NEWUSER = 0x10000000


@pytest.mark.parametrize(
    ("what", "call", "answer"),
    [
        ("mount", "call(165, 0, 0, 0, 0, 0)", "EPERM"),
        ("unshare a user namespace", f"call(272, {CLONE_NEWUSER})", "EPERM"),
        ("clone into a user namespace", f"call(56, {CLONE_NEWUSER} | 17, 0, 0, 0, 0)", "EPERM"),
        ("clone3", "call(435, 0, 0)", "ENOSYS"),
        ("setns", "call(308, 0, 0)", "EPERM"),
        ("pivot_root", "call(155, 0, 0)", "EPERM"),
        ("ptrace", "call(101, 0, 1, 0, 0)", "EPERM"),
        ("keyctl", "call(250, 0, -3, 0)", "EPERM"),
        ("add_key", "call(248, 0, 0, 0, 0, 0)", "EPERM"),
        ("bpf", "call(321, 0, 0, 0)", "EPERM"),
        ("io_uring_setup", "call(425, 1, 0)", "EPERM"),
        ("userfaultfd", "call(323, 0)", "EPERM"),
        ("perf_event_open", "call(298, 0, 0, -1, -1, 0)", "EPERM"),
        ("open_by_handle_at", "call(304, -100, 0, 0)", "EPERM"),
        ("an internet socket", "call(41, 2, 1, 0)", "EPERM"),
        ("a netlink socket", "call(41, 16, 3, 0)", "EPERM"),
        ("a packet socket", "call(41, 17, 3, 0)", "EPERM"),
        ("an AF_ALG socket", "call(41, 38, 5, 0)", "EPERM"),
        ("a vsock socket", "call(41, 40, 1, 0)", "EPERM"),
        ("TIOCSTI", "call(16, 0, 0x5412, 0)", "EPERM"),
        ("TIOCSTI behind a high half", "call(16, 0, 0xffffffff00005412 - (1 << 64), 0)", "EPERM"),
        ("a number nobody knows", "call(1000)", "ENOSYS"),
        # Positive controls: the probe itself works, inside, for what is allowed.
        ("a unix socket", "call(41, 1, 1, 0)", "ok"),
        ("getpid", "call(39)", "ok"),
    ],
)
async def test_system_calls(run: Run, what: str, call: str, answer: str) -> None:
    ran = await run("/usr/bin/python3", "-I", "-S", "-c", f"{PROBE}print({call})", seccomp="python")
    assert ran.stdout.strip() == answer, ran.stderr


def test_the_probe_works_outside() -> None:
    outside = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{PROBE}print(call(41, 2, 1, 0), call(250, 0, -3, 0))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert outside.stdout.split() == ["ok", "ok"]


async def test_the_32_bit_door_is_shut(run: Run) -> None:
    """An int 0x80 would reach socketcall, which no rule on socket() sees: it kills."""
    code = (
        "import ctypes, mmap\n"
        "m = mmap.mmap(-1, 4096, prot=7)\n"
        r"m.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')" + "\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))(), flush=True)"
    )
    outside = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    inside = await run("/usr/bin/python3", "-I", "-c", code, seccomp="python")
    assert inside.result["signal"] == 31, inside
    assert await outside.wait() in (0, -11)  # -11: a kernel without 32-bit emulation


async def test_pid_one_is_out_of_reach(sh: Sh) -> None:
    ran = await sh("kill -KILL 1; echo survived; cat /proc/1/environ; ls /proc/1/fd")
    assert ran.stdout == "survived\n"


async def test_abstract_sockets_of_the_host_are_out_of_reach(run: Run) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0clawos-test")
        listener.listen()
        code = "import socket; s = socket.socket(socket.AF_UNIX); s.connect(b'\\0clawos-test'); print('in')"
        outside = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        assert await outside.wait() == 0
        ran = await run("/usr/bin/python3", "-I", "-S", "-c", code, seccomp="python")
    assert ran.exit_code == 1
    assert "Refused" in ran.stderr or "Permission" in ran.stderr


async def test_home_is_written_by_its_user_alone(sh: Sh, config: Config) -> None:
    ran = await sh("pwd; whoami; echo kept > file", home="write", home_owner=0)
    assert ran.stdout.split() == ["/home/root", "root"]
    kept = config.home / "0" / "file"
    assert kept.read_text() == "kept\n"
    assert kept.stat().st_uid == SANDBOX.pw_uid
    assert kept.parent.stat().st_mode & 0o777 == 0o770
    assert (await sh("cat file; echo no > file", home="read", home_owner=0)).stdout == "kept\n"
    assert kept.read_text() == "kept\n"
    other = await sh("ls -A . /home", home="write", home_owner=SANDBOX.pw_uid)
    assert "file" not in other.stdout.replace("clawos-sandbox", "")
    assert (await sh("ls -A /home")).stdout == ""


async def test_a_link_in_the_home_leads_nowhere(sh: Sh, config: Config, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    await sh(f"ln -s {tmp_path}/outside link", home="write", home_owner=0)
    assert (config.home / "0" / "link").is_symlink()
    assert (await sh("cat link", home="read", home_owner=0)).stdout == ""


async def test_a_home_that_is_a_link_is_refused(isolator: Isolator, config: Config) -> None:
    config.home.mkdir()
    (config.home / "0").symlink_to("/etc")
    with pytest.raises(SandboxRefused) as refused:
        await isolator.run(spec_text("/usr/bin/true", home="read", home_owner=0), null(), ":1.1")
    assert (refused.value.step, refused.value.fields["errno"]) == ("home", "ENOTDIR")


async def test_a_home_with_wrong_rights_is_put_right(sh: Sh, config: Config) -> None:
    await sh("echo kept > file", home="write", home_owner=0)
    home = config.home / "0"
    os.chown(home, -1, 0)
    home.chmod(0o777)
    assert (await sh("cat file", home="read", home_owner=0)).stdout == "kept\n"
    found = home.stat()
    assert (found.st_gid, found.st_mode & 0o7777) == (SANDBOX.pw_gid, 0o770)


async def test_a_home_of_somebody_else_is_refused(isolator: Isolator, config: Config) -> None:
    (config.home / "0").mkdir(parents=True)
    os.chown(config.home / "0", SANDBOX.pw_uid, -1)
    with pytest.raises(SandboxRefused, match="belongs to the user") as refused:
        await isolator.run(spec_text("/usr/bin/true", home="read", home_owner=0), null(), ":1.1")
    assert refused.value.step == "home"


async def test_no_file_gets_set_user_or_set_group_id(sh: Sh, config: Config) -> None:
    ran = await sh("cp /usr/bin/true t; chmod u+s t; chmod g+s t; chmod 750 t", home="write", home_owner=0)
    assert ran.stderr.count("Operation not permitted") == 2
    assert (config.home / "0" / "t").stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize("host_proc", [False, True])
async def test_sandboxes_go_first_when_memory_ends(sh: Sh, host_proc: bool) -> None:
    script = "cat /proc/self/oom_score_adj; echo 0 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj"
    ran = await sh(script, host_proc=host_proc)
    assert ran.stdout.split() == ["500", "500"]
    assert int(Path("/proc/self/oom_score_adj").read_text()) < 500, "and we do not"


async def test_read_shows_what_it_names_and_no_more(sh: Sh) -> None:
    ran = await sh("cat /etc/debian_version; ls /var/log | head -1; echo x > /etc/x", read=["/etc"])
    assert ran.stdout.strip() == Path("/etc/debian_version").read_text().strip()
    assert "Read-only" in ran.stderr or "denied" in ran.stderr
    assert (await sh("cat /etc/debian_version")).stdout == ""


async def test_shadow_stays_unreadable(sh: Sh) -> None:
    assert Path("/etc/shadow").read_text(), "outside, root reads it"
    ran = await sh("cat /etc/shadow", read=["/etc"])
    assert (ran.stdout, ran.exit_code) == ("", 1)


async def test_host_proc_shows_the_machine(sh: Sh, backend: str) -> None:
    own = await sh("ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm")
    host = await sh("ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm; echo x > /proc/self/comm", host_proc=True)
    assert int(own.stdout.split()[0]) < 6 < int(host.stdout.split()[0])
    assert own.stdout.split()[1] == {"launcher": "claw-launch", "bubblewrap": "claw-confine"}[backend]
    assert host.stdout.split()[1] == Path("/proc/1/comm").read_text().strip()
    assert "Read-only" in host.stderr or "denied" in host.stderr


async def test_groups_are_given_and_kept_apart(run: Run, tmp_path: Path) -> None:
    import grp

    gid = grp.getgrnam("systemd-journal").gr_gid
    ran = await run("/usr/bin/cat", "/proc/self/status", groups=["systemd-journal"], host_proc=True)
    groups = next(line for line in ran.stdout.splitlines() if line.startswith("Groups:")).split()[1:]
    assert groups == ["65534"], "known to the kernel, without a name in the user namespace"
    log = Path("/var/log/journal")
    log.mkdir(exist_ok=True)
    only_group = log / f"clawos-test-{os.getpid()}"
    only_group.write_text("for the group")
    try:
        os.chown(only_group, 0, gid)
        only_group.chmod(0o640)
        command = ("/usr/bin/cat", str(only_group))
        assert (await run(*command, read=["/var/log/journal"])).stdout == ""
        with_group = await run(*command, read=["/var/log/journal"], groups=["systemd-journal"])
        assert with_group.stdout == "for the group"
    finally:
        only_group.unlink()


async def test_standard_input_is_carried(isolator: Isolator, tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"through a pipe")
    os.close(write_fd)
    ran = await finish(await isolator.run(spec_text("/usr/bin/cat", stdin=True), read_fd, ":1.1"))
    assert ran.stdout == "through a pipe"
    file = tmp_path / "in"
    file.write_bytes(b"x" * 300_000)
    ran = await finish(
        await isolator.run(spec_text("/usr/bin/wc", "-c", stdin=True), os.open(file, os.O_RDONLY), ":1.1")
    )
    assert ran.stdout.strip() == "300000"


async def test_a_directory_as_standard_input_is_no_door(isolator: Isolator) -> None:
    fd = os.open("/", os.O_RDONLY)
    ran = await finish(await isolator.run(spec_text("/bin/ls", "/proc/self/fd/0/", stdin=True), fd, ":1.1"))
    assert ran.stdout == ""


async def test_without_stdin_there_is_nothing_to_read(sh: Sh) -> None:
    assert (await sh("cat; echo end")).stdout == "end\n"


async def test_a_flood_of_output_is_cut(sh: Sh) -> None:
    ran = await sh("yes")
    assert len(ran.stdout) == 1_048_576
    assert ran.result["limit"] == "output"
    # Killed, unless it first found that nobody reads it any more.
    assert ran.result["signal"] == 9 or ran.result["exit_code"] == 128 + signal.SIGPIPE


async def test_a_slow_reader_slows_the_program(isolator: Isolator) -> None:
    call = await isolator.run(spec_text("/usr/bin/yes"), null(), ":1.1")
    await asyncio.sleep(0.3)
    assert os.read(call.stdout, 4) == b"y\ny\n"
    assert isolator.status()["running"] == 1
    ran = await finish(call)
    assert ran.result["limit"] == "output"


async def test_wall_clock_ends_what_ignores_and_hides(sh: Sh) -> None:
    """A daemon that double-forks, leaves the session and ignores every signal that can be ignored."""
    started = time.monotonic()
    ran = await sh(
        "trap '' TERM HUP INT; (setsid sh -c 'trap \"\" TERM HUP; sleep 1000 & sleep 1000' &) ; sleep 1000",
        wall_s=0.5,
    )
    assert time.monotonic() - started < 10
    assert (ran.result["limit"], ran.result["signal"]) == ("wall", 9)
    assert not leftovers("sleep\0001000")


async def test_a_daemon_does_not_outlive_its_call(sh: Sh) -> None:
    ran = await sh("setsid sleep 1001 >/dev/null 2>&1 & echo started")
    assert (ran.stdout, ran.exit_code) == ("started\n", 0)
    assert not leftovers("sleep\0001001")


async def test_cancel_kills(isolator: Isolator) -> None:
    call = await isolator.run(spec_text("/usr/bin/sleep", "1002"), null(), ":1.1")
    await isolator.cancel(call.id, ":1.2")
    assert isolator.status()["running"] == 1, "another's call is not his to cancel"
    await isolator.cancel(call.id, ":1.1")
    assert (await finish(call)).result["limit"] == "cancelled"
    assert not leftovers("sleep\0001002")


async def test_a_caller_who_leaves_takes_his_calls_along(isolator: Isolator) -> None:
    call = await isolator.run(spec_text("/usr/bin/sleep", "1003"), null(), ":1.1")
    isolator.vanished(":1.1")
    assert (await finish(call)).result["limit"] == "cancelled"
    assert not leftovers("sleep\0001003")


async def test_closing_stdout_kills(isolator: Isolator) -> None:
    call = await isolator.run(spec_text("/usr/bin/sleep", "1004"), null(), ":1.1")
    os.close(call.stdout)
    assert b"cancelled" in await asyncio.to_thread(os.read, call.result, 4096)
    os.close(call.stderr)
    os.close(call.result)
    assert not leftovers("sleep\0001004")


async def test_stopping_the_service_kills(isolator: Isolator) -> None:
    call = await isolator.run(spec_text("/usr/bin/sleep", "1005"), null(), ":1.1")
    closing = asyncio.create_task(isolator.close())
    await finish(call)
    await closing
    assert not leftovers("sleep\0001005")


async def test_a_killed_launcher_leaves_nothing(isolator: Isolator, config: Config, backend: str) -> None:
    call = await isolator.run(spec_text("/usr/bin/sleep", "1006"), null(), ":1.1")
    launchers = leftovers(f"{getattr(config, backend)}\0")
    os.kill(min(launchers), 9)
    ran = await finish(call)
    assert ran.result["signal"] == 9
    for _ in range(50):
        if not leftovers("sleep\0001006"):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the program outlived its launcher")


def spawner_of(config: Config) -> int:
    """The launcher's child, which is pid 1 of all sandboxes."""
    for pid in leftovers(f"{config.launcher}\0"):
        rows = dict(row.split(":\t", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines())
        if rows["NSpid"].split()[1:] == ["1"]:
            return pid
    raise AssertionError("there is no spawner")


@by_launcher
async def test_a_killed_spawner_takes_all_along_and_the_next_call_starts_another(
    isolator: Isolator, config: Config, sh: Sh
) -> None:
    calls = [await isolator.run(spec_text("/usr/bin/sleep", "1013"), null(), ":1.1") for _ in range(3)]
    os.kill(spawner_of(config), 9)
    for call in calls:
        ran = await finish(call)
        assert (ran.exit_code, ran.result["signal"]) == (None, 9)
    assert not leftovers("sleep\0001013")
    assert (await sh("echo again")).stdout == "again\n"
    os.kill(spawner_of(config), 9)
    await asyncio.sleep(0.2)
    assert (await sh("echo and again")).stdout == "and again\n"


@by_launcher
async def test_a_spawner_that_does_not_answer_is_ended(
    isolator: Isolator, config: Config, sh: Sh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_module, "_KILL_GRACE_S", 0.2)
    call = await isolator.run(spec_text("/usr/bin/sleep", "1014"), null(), ":1.1")
    os.kill(spawner_of(config), signal.SIGSTOP)
    await isolator.cancel(call.id, ":1.1")
    assert (await finish(call)).result["limit"] == "cancelled"
    assert not leftovers("sleep\0001014")
    assert (await sh("echo again")).stdout == "again\n"


@by_launcher
async def test_a_spawner_that_starts_nothing_is_ended(
    isolator: Isolator, config: Config, sh: Sh, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await sh("echo first")).stdout == "first\n"
    monkeypatch.setattr(launcher_module, "_START_TIMEOUT_S", 0.2)
    os.kill(spawner_of(config), signal.SIGSTOP)
    with pytest.raises(SandboxRefused) as refused:
        await isolator.run(spec_text("/usr/bin/true"), null(), ":1.1")
    assert (refused.value.step, refused.value.fields["errno"]) == ("launcher", "ETIMEDOUT")
    monkeypatch.undo()
    assert (await sh("echo again")).stdout == "again\n"


def test_the_end_of_the_service_is_the_end_of_its_sandboxes(launcher_path: Path, planner: Planner) -> None:
    """However it ends: nobody is left who could clean up."""
    plan = encode(planner.plan(parse(spec_text("/usr/bin/sleep", "1015"))))
    command = [sys.executable, str(Path(__file__).with_name("rig.py")), str(launcher_path), plan.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        said = service.stdout.readline()
        deadline = time.monotonic() + 10
        while not (left := leftovers("sleep\0001015")) and time.monotonic() < deadline:
            time.sleep(0.01)
        service.kill()
    assert said.startswith(b"started")
    assert left
    deadline = time.monotonic() + 10
    while leftovers("sleep\0001015") or leftovers(f"{launcher_path}\0"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@by_launcher
async def test_roots_are_used_again_and_nothing_in_them_is(sh: Sh, launcher: Launcher) -> None:
    assert (await sh("echo x > /tmp/a; ls /tmp")).stdout == "a\n"
    assert launcher._roots is not None
    (root,) = launcher._roots._kept.values()
    ran = await sh("ls -A /tmp /dev/shm; readlink /proc/self; ls /proc/net/dev_snmp6 2>&1 | wc -l")
    assert ran.stdout.split()[:2] == ["/dev/shm:", "/tmp:"]
    assert launcher._roots._kept.popitem()[1] == root
    os.close(root)


async def test_each_call_has_a_network_namespace_of_its_own(sh: Sh) -> None:
    seen = {(await sh("readlink /proc/self/ns/net")).stdout for _ in range(15)}
    assert len(seen) >= 5, "numbers come back when a namespace has gone, and not before"


def test_the_launcher_is_hardened(launcher_path: Path) -> None:
    told = subprocess.run(
        ["readelf", "-hlWd", launcher_path], capture_output=True, text=True, check=True
    ).stdout
    assert "DYN (Position-Independent" in told
    assert "GNU_RELRO" in told
    assert "NOW PIE" in told
    assert re.search(r"GNU_STACK.* RW ", told)
    assert "INTERP" not in told
    assert "NEEDED" not in told


async def test_a_missing_program_is_refused(isolator: Isolator) -> None:
    with pytest.raises(SandboxRefused) as refused:
        await isolator.run(spec_text("/usr/bin/no-such-program"), null(), ":1.1")
    assert (refused.value.step, refused.value.fields["errno"]) == ("exec", "ENOENT")


async def test_a_missing_directory_is_refused(isolator: Isolator) -> None:
    with pytest.raises(SandboxRefused) as refused:
        await isolator.run(spec_text("/usr/bin/true", cwd="/nowhere"), null(), ":1.1")
    assert refused.value.step == "cwd"
    assert isolator.status()["running"] == 0


def test_as_the_unit_runs_it(planner: Planner, launcher_path: Path) -> None:
    """Not root but a user with two capabilities, as the unit's User= and AmbientCapabilities= say."""
    script = "id -u; cat /proc/self/oom_score_adj"
    for parent in launcher_path.parents[:3]:
        parent.chmod(0o755)
    plan = planner.plan(parse(spec_text("/bin/sh", "-c", script, groups=["systemd-journal"])))
    capabilities = "-all,+setuid,+setgid"
    options = [f"--{which}={capabilities}" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    who = ["--reuid=clawos-isolator", "--regid=clawos-isolator", "--init-groups", "--no-new-privs"]
    ids = host_ids(Config())
    ours = pwd.getpwnam("clawos-isolator")
    ids = replace(ids, users=ids.users - {0} | {ours.pw_uid}, groups=ids.groups - {0} | {ours.pw_gid})
    command = ["setpriv", *who, *options]
    read_end, write_end = os.pipe()
    with Rig(launcher_path, before=command, uid_map=ids.uid_map, gid_map=ids.gid_map) as rig:
        reports = rig.run(encode(plan, ids.calls[0]), write_end)
    os.close(write_end)
    assert read_all(read_end).split() == [str(SANDBOX.pw_uid).encode(), b"500"], reports
    assert [line.split()[0] for line in reports] == ["started", "exited", "usage"]


async def running(command_line: str, count: int) -> list[int]:
    """As `leftovers`, once there are so many; a command line shows a moment after its program has started."""
    async with asyncio.timeout(10):
        while len(found := leftovers(command_line)) < count:  # noqa: ASYNC110 # it has no event
            await asyncio.sleep(0.01)
    return found


def leftovers(command_line: str) -> list[int]:
    """Processes on this machine whose command line begins so."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_text()
            except OSError:
                continue
            if text.startswith(command_line) or f"/{command_line}" in text[: len(command_line) + 10]:
                found.append(int(entry.name))
    return found
