"""Checks that only read /proc, /sys and the disk. Each takes the root to read below, so that tests can build
one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clawos.claw.check import Finding, fail, ok, warn
from clawos.core import manifest

LSMS = ("landlock", "lockdown", "yama", "apparmor", "bpf")
CONTROLLERS = ("cpu", "memory", "pids")
SYSCTL_FILE = "usr/lib/sysctl.d/60-clawos.conf"
_TCP_LISTEN, _UDP_UNCONNECTED = "0A", "07"
_DHCP_CLIENT_PORTS = (68, 546)
# Below the first, a model cannot be added nor a journal kept; below the second the machine is about to stop
# working.
_DISK_WARN, _DISK_FAIL = 0.10, 0.02


def frozen_specs(where: manifest.Roots) -> Finding:
    differences = manifest.verify(where)
    if differences:
        more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
        return fail(
            "manifest", f"{differences[0]}{more}", "reinstall the image: these files are read-only in it"
        )
    return ok("manifest", f"{len(where.files())} specs and policies are as shipped")


def lockdown(root: Path) -> Finding:
    text = _read(root / "sys/kernel/security/lockdown")
    mode = re.search(r"\[(\w+)\]", text or "")
    if mode is None:
        return fail(
            "lockdown", "the kernel has no lockdown", "boot with lsm=landlock,lockdown,yama,apparmor,bpf"
        )
    if mode[1] == "none":
        return fail("lockdown", "root can change the running kernel", "boot with lockdown=integrity")
    return ok("lockdown", f"the kernel is locked down: {mode[1]}")


def lsms(root: Path) -> Finding:
    active = (_read(root / "sys/kernel/security/lsm") or "").strip().split(",")
    missing = [name for name in LSMS if name not in active]
    if missing:
        return fail("lsm", f"not active: {', '.join(missing)}", f"boot with lsm={','.join(LSMS)}")
    return ok("lsm", f"active: {', '.join(name for name in active if name)}")


def sysctls(root: Path) -> Finding:
    text = _read(root / SYSCTL_FILE)
    if text is None:
        return fail("sysctl", f"/{SYSCTL_FILE} is missing", "reinstall the image")
    wrong = []
    wanted = _asked(text)
    for key, value in wanted.items():
        got = _read(root / "proc/sys" / key.replace(".", "/"))
        if got is None or got.split() != value.split():
            wrong.append(f"{key} is {'not there' if got is None else got.strip()}, not {value}")
    if wrong:
        return fail("sysctl", "; ".join(wrong), "see 'journalctl -u systemd-sysctl' and /etc/sysctl.d")
    return ok("sysctl", f"all {len(wanted)} are as asked")


def _asked(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition("=") for line in lines if line and line[0] not in "#;"]
    # A leading - means that systemd-sysctl does not mind when it cannot be set; doctor does.
    return {key.strip().lstrip("-"): value.strip() for key, _, value in pairs}


def listeners(root: Path) -> Finding:
    found = {
        (kind, port)
        for kind, state in (("tcp", _TCP_LISTEN), ("udp", _UDP_UNCONNECTED))
        for family in ("", "6")
        for port in _ports(root / f"proc/net/{kind}{family}", state)
    }
    found -= {("udp", port) for port in _DHCP_CLIENT_PORTS}
    if found:
        names = ", ".join(f"{kind} {port}" for kind, port in sorted(found))
        return fail("listeners", f"open: {names}", "find out whose: ss -lntup")
    return ok("listeners", "no TCP or UDP port is open")


def _ports(table: Path, state: str) -> list[int]:
    rows = [line.split() for line in (_read(table) or "").splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == state]


def disk(path: Path) -> Finding:
    try:
        found = os.statvfs(path)
    except OSError as error:
        return fail("disk", f"{path}: {error.strerror}", "is the state partition mounted? see 'findmnt'")
    share = found.f_bavail / found.f_blocks if found.f_blocks else 0.0
    sentence = f"{share:.0%} of {path} is free ({found.f_bavail * found.f_frsize / 1e9:.1f} GB)"
    advice = "remove models (claw model list) or old journals (journalctl --vacuum-size=100M)"
    if share < _DISK_FAIL:
        return fail("disk", sentence, advice)
    return warn("disk", sentence, advice) if share < _DISK_WARN else ok("disk", sentence)


def controllers(root: Path, control_group: str) -> Finding:
    """Whether the isolator may limit what it runs."""
    if not control_group:
        return warn(
            "cgroup", "the isolator does not run, so nothing is delegated yet", "ask for something first"
        )
    delegated = _read(root / "sys/fs/cgroup" / control_group.lstrip("/") / "cgroup.controllers")
    missing = [name for name in CONTROLLERS if name not in (delegated or "").split()]
    if missing:
        advice = "see Delegate= in 'systemctl cat clawos-isolator'"
        return fail("cgroup", f"not delegated to the isolator: {', '.join(missing)}", advice)
    return ok("cgroup", f"delegated to the isolator: {', '.join(CONTROLLERS)}")


def tpm(root: Path) -> Finding:
    version = (_read(root / "sys/class/tpm/tpm0/tpm_version_major") or "").strip()
    if version == "2":
        return ok("tpm", "a TPM 2.0 is there")
    found = f"the TPM is of version {version}" if version else "there is no TPM"
    return warn("tpm", f"{found}: secrets cannot be sealed to this machine", "give the machine a TPM 2.0")


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
