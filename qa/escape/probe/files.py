"""Files, devices, /proc, descriptors and directories: what can be seen, opened and written."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from qa.escape.probe.act import Act

WRITE = {
    "core_pattern": "/proc/sys/kernel/core_pattern",
    "modprobe": "/proc/sys/kernel/modprobe",
    "sysrq": "/proc/sys/kernel/sysrq",
    "sysrq-trigger": "/proc/sysrq-trigger",
    "poweroff_cmd": "/proc/sys/kernel/poweroff_cmd",
    "overcommit_memory": "/proc/sys/vm/overcommit_memory",
    "ip_forward": "/proc/sys/net/ipv4/ip_forward",
    "binfmt_misc": "/proc/sys/fs/binfmt_misc/register",
    "own oom_score_adj": "/proc/self/oom_score_adj",
    "own uid_map": "/proc/self/uid_map",
    "own setgroups": "/proc/self/setgroups",
    "own loginuid": "/proc/self/loginuid",
    "own mem": "/proc/self/mem",
    "own label at exec": "/proc/self/attr/apparmor/exec",
    "own label": "/proc/self/attr/current",
    "program of pid 1": "/proc/1/exe",
    "uevent": "/sys/devices/virtual/mem/null/uevent",
    "sysfs": "/sys/kernel/mm/transparent_hugepage/enabled",
    "cgroup.procs": "/sys/fs/cgroup/cgroup.procs",
}
READ = {
    "environment of pid 1": "/proc/1/environ",
    "memory map of pid 1": "/proc/1/maps",
    "program of pid 1, to read": "/proc/1/exe",
    "kcore": "/proc/kcore",
    "kernel log": "/proc/kmsg",
    "passwords": "/etc/shadow",
    "state of the services": "/var/lib/clawos/agent",
    "home of root": "/root",
    "homes on the host": "/var/home",
    "run": "/run/systemd/units",
    "sysfs tree": "/sys/kernel",
    "cgroup tree": "/sys/fs/cgroup",
    "debugfs": "/sys/kernel/debug",
    "tracefs": "/sys/kernel/tracing",
    "securityfs": "/sys/kernel/security",
    "directory of pid 1": "/proc/1/cwd/.",
    "root of pid 1": "/proc/1/root/.",
    "descriptors of pid 1": "/proc/1/fd",
}
DEVICES = (
    "mem",
    "kmsg",
    "vda",
    "tty0",
    "ptmx",
    "console",
    "tpm0",
    "loop-control",
    "rtc0",
    "hwrng",
    "mapper/control",
    "net/tun",
    "fuse",
    "snapshot",
    "nvram",
    "cpu_dma_latency",
    "virtio-ports/clawos.harness",
)
CREATE = ("/etc", "/var/log", "/home", "/dev", "/run", "/var/lib")
STEPS = 64


def acts(told: dict[str, Any]) -> dict[str, Act]:
    # The monitor's guard keeps root, too, from the machine's own pid 1: root tries another.
    first = 1 if os.getuid() else told["pid"]
    return {
        "write memory of pid 1": partial(_open, f"/proc/{first}/mem", os.O_WRONLY),
        **{f"write {name}": partial(_open, path, os.O_WRONLY) for name, path in WRITE.items()},
        **{f"read {name}": partial(_look, path) for name, path in READ.items()},
        **{f"device {name}": partial(_open, f"/dev/{name}", os.O_RDONLY) for name in DEVICES},
        **{f"create in {path}": partial(_create, path) for path in CREATE},
        "writable below /proc": _writable_proc,
        "descriptors": _descriptors,
        "own program": _own_program,
        "working directory": _working_directory,
        "steps up": _steps_up,
        "steps up from a descriptor": _steps_up_by_descriptor,
        "state by steps up": partial(_look, "../" * STEPS + "var/lib/clawos/agent"),
        "state by own root": partial(_look, "/proc/self/root/../../var/lib/clawos/agent"),
        "hard link to a file of the host": _hard_link,
        "run a file of one's own": _run_own,
        "run a file of one's own by ld.so": _run_own_by_loader,
        "map a file of one's own executable": _map_own,
        "shared mounts": _shared_mounts,
        "processes": _processes,
    }


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))


def _look(path: str) -> None:
    if Path(path).is_dir():
        os.listdir(path)
    else:
        with open(path, "rb") as found:
            os.set_blocking(found.fileno(), False)
            found.raw.read(1)


def _create(directory: str) -> None:
    made = f"{directory}/clawos-escape"
    os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(made)


def _writable_proc() -> str:
    """Everything that opens for writing, but for one's own descriptors, which are not /proc's."""
    found = []
    for root, directories, names in os.walk("/proc"):
        if root == "/proc":
            directories[:] = [d for d in directories if not d.isdigit() and d not in ("self", "thread-self")]
            directories += [str(os.getpid()), "1"]
        directories[:] = [d for d in directories if d not in ("fd", "map_files", "task")]
        for name in names:
            path = f"{root}/{name}"
            if Path(path).is_symlink():
                continue
            with contextlib.suppress(OSError):
                _open(path, os.O_WRONLY)
                found.append(path.replace(f"/{os.getpid()}/", "/self/"))
    return f"{len(found)}: {' '.join(found[:5])}" if found else "none"


def _descriptors() -> str:
    """Asked one by one: what is hidden from /proc is open all the same. Ours is the pipe of the answer."""
    limit = 4096
    found = []
    for number in range(3, limit):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}") if os.fstat(number) else "")
    return " ".join(kind for kind in found if not kind.startswith("pipe:")) or "none"


def _own_program() -> None:
    """CVE-2019-5736: keep the program's file open, let the program end, and open it again for writing."""
    source = shutil.which("sleep")
    assert source
    program = _copied(source) if os.access("/proc/1/mem", os.R_OK) else source
    running = subprocess.Popen([program, "60"])
    try:
        kept = os.open(f"/proc/{running.pid}/exe", os.O_RDONLY)
    finally:
        running.kill()
        running.wait()
    os.close(os.open(f"/proc/self/fd/{kept}", os.O_WRONLY))


def _copied(source: str, directory: str = "/tmp") -> str:
    made = f"{directory}/clawos-escape-{os.getpid()}"
    shutil.copyfile(source, made)
    os.chmod(made, 0o755)
    return made


def _working_directory() -> str:
    here = os.getcwd()
    return here if os.readlink("/proc/self/cwd") == here else "elsewhere"


def _steps_up() -> str:
    """Where it ends: the sandbox's own root, which is not the host's."""
    for _ in range(STEPS):
        os.chdir("..")
    return _root_named(os.listdir("."))


def _steps_up_by_descriptor() -> str:
    at = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(STEPS):
        at = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
    return _root_named(os.listdir(at))


def _root_named(names: list[str]) -> str:
    return "root of the host" if "boot" in names else "root of the sandbox"


def _hard_link() -> None:
    """A second name, where one may write, for a file that one may only read."""
    theirs = next(f"{root}/{names[0]}" for root, _, names in os.walk("/var/log") if names)
    made = f"{'/var/tmp' if os.getuid() == 0 else os.getcwd()}/clawos-escape-{os.getpid()}"
    os.link(theirs, made)
    os.unlink(made)


def _run_own() -> None:
    made = _copied("/usr/bin/true")
    try:
        subprocess.run([made], check=True)
    finally:
        os.unlink(made)


def _run_own_by_loader() -> str:
    made = _copied("/usr/bin/true")
    try:
        done = subprocess.run(["/lib64/ld-linux-x86-64.so.2", made], capture_output=True, text=True)
        return "cannot be mapped" if "failed to map" in done.stderr else done.stderr or "ok"
    finally:
        os.unlink(made)


def _map_own() -> None:
    made = _copied("/usr/bin/true")
    try:
        with open(made, "rb") as code:
            mmap.mmap(code.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    finally:
        os.unlink(made)


def _shared_mounts() -> str:
    """Mounts that would send their events to another mount namespace, or get them from there."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    tags = {tag.split(":")[0] for line in lines for tag in line.split(" - ")[0].split()[6:]}
    return " ".join(sorted(tags)) or "none"


def _processes() -> str:
    """More than pid 1, ourselves, our parents and children."""
    return "of others" if len([p for p in os.listdir("/proc") if p.isdigit()]) > 6 else "own"
