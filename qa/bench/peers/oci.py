"""A plan as an OCI bundle, for crun and runc."""

from __future__ import annotations

import json
import platform
import resource
from pathlib import Path, PurePosixPath
from typing import Any

from clawos.isolator.plan import Bind, Dir, Link, Mount, Plan, Proc, Tmpfs
from clawos.isolator.seccomp import profile
from qa.bench.peers.place import Place

_EPERM = 1
# Ids outside for the ids inside: the runtimes are root in there while they build, so one id is not enough.
_FIRST_ID, _IDS = 1_000_000_000, 65536
_PERIOD_US = 100_000
_CAPABILITIES = ("bounding", "effective", "inheritable", "permitted", "ambient")
_RLIMITS = {
    getattr(resource, f"RLIMIT_{name}"): f"RLIMIT_{name}"
    for name in ("CORE", "FSIZE", "MEMLOCK", "MSGQUEUE", "NOFILE")
}


def write_bundle(place: Place, plan: Plan, etc: Path, bundle: Path) -> Path:
    _make_root(plan, bundle / "rootfs")
    (bundle / "config.json").write_text(json.dumps(_config(place, plan, etc)))
    return bundle


def crun(place: Place, bundle: Path) -> tuple[str, ...]:
    """With cgroups it writes the files itself, as we do, without systemd between."""
    manager = "cgroupfs" if place.cgroup else "disabled"
    libraries = place.peers / "usr/lib/x86_64-linux-gnu"
    command = (str(place.peers / "usr/bin/crun"), "--root", str(place.scratch / "crun"))
    return (*command, f"--cgroup-manager={manager}", f"@env:LD_LIBRARY_PATH={libraries}", *_run(bundle))


def runc(place: Place, bundle: Path) -> tuple[str, ...]:
    """It cannot do without a cgroup: without controllers it makes one that limits nothing."""
    return (str(place.peers / "usr/sbin/runc"), "--root", str(place.scratch / "runc"), *_run(bundle))


def _run(bundle: Path) -> tuple[str, ...]:
    return ("run", "--bundle", str(bundle), "@id")


def _make_root(plan: Plan, rootfs: Path) -> None:
    """What is mounted needs a place to stand; the links are made once."""
    for directory in ("etc", "dev", "proc", "tmp", "usr"):
        (rootfs / directory).mkdir(parents=True, exist_ok=True)
    for operation in plan.operations:
        if PurePosixPath(operation.path).parts[1:2] in (("etc",), ("dev",)):
            continue
        inside = rootfs / operation.path.removeprefix("/")
        match operation:
            case Dir():
                inside.mkdir(parents=True, exist_ok=True)
            case Link(_, target) if not inside.is_symlink():
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.symlink_to(target)
            case _:
                pass


def _config(place: Place, plan: Plan, etc: Path) -> dict[str, Any]:
    ids = [{"containerID": 0, "hostID": _FIRST_ID, "size": _IDS}]
    linux: dict[str, Any] = {
        "namespaces": [
            {"type": kind} for kind in ("user", "pid", "mount", "network", "ipc", "uts", "cgroup")
        ],
        "uidMappings": ids,
        "gidMappings": ids,
        "seccomp": _seccomp(place.policies / "seccomp", plan.seccomp_name),
    }
    if place.cgroup:
        inside = place.cgroup.relative_to("/sys/fs/cgroup")
        quota = plan.quota
        # memory and swap together, as of cgroup v1; a kernel without swap has no such limit
        swap = {"swap": quota.memory_bytes} if "memory.swap.max" in place.limits else {}
        linux["cgroupsPath"] = f"/{inside}/oci"
        linux["resources"] = {
            "memory": {"limit": quota.memory_bytes, **swap},
            "pids": {"limit": quota.pids},
            "cpu": {"quota": quota.cpu_percent * _PERIOD_US // 100, "period": _PERIOD_US},
        }
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": plan.uid, "gid": plan.gid, "umask": 0o022},
            "args": plan.argv,
            "env": [f"{name}={value}" for name, value in plan.env.items()],
            "cwd": plan.cwd,
            "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in _CAPABILITIES},
            "rlimits": [
                {"type": _RLIMITS[number], "hard": limit, "soft": limit}
                for number, limit in plan.rlimits.items()
                if number in _RLIMITS
            ],
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": plan.hostname,
        "mounts": _mounts(plan, etc),
        "linux": linux,
    }


def _mounts(plan: Plan, etc: Path) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "mode=755", "size=65536"),
        _mount("/etc", "bind", str(etc), "rbind", "ro", "nosuid", "nodev", "noexec"),
    ]
    for operation in plan.operations:
        if operation.path.startswith("/etc"):
            continue
        match operation:
            case Bind(path, source, flags, _) if not flags & Mount.DEVICES:
                execution = () if flags & Mount.EXEC else ("noexec",)
                mounts.append(_mount(path, "bind", source, "rbind", "ro", "nosuid", "nodev", *execution))
            case Tmpfs(path, size_bytes, _):
                options = ("nosuid", "nodev", "noexec", "mode=1777", f"size={size_bytes}")
                mounts.append(_mount(path, "tmpfs", "tmpfs", *options))
            case Proc(path):
                mounts.append(_mount(path, "proc", "proc", "ro", "nosuid", "nodev", "noexec"))
            case _:
                pass
    return mounts


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _seccomp(policies: Path, name: str) -> dict[str, Any]:
    """The same rules; the runtime's libseccomp compiles them in every call, for a bundle holds no filter."""
    rules: list[dict[str, Any]] = []
    for call, rule in profile.load(policies, name, platform.machine()).items():
        for tests in rule.alternatives:
            arguments = [
                {"index": t.arg, "value": t.mask, "valueTwo": t.value, "op": "SCMP_CMP_MASKED_EQ"}
                for t in tests
            ]
            rules.append({"names": [call], "action": "SCMP_ACT_ALLOW", "args": arguments})
    plain = [rule["names"][0] for rule in rules if not rule["args"]]
    tested = [rule for rule in rules if rule["args"]]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": plain, "action": "SCMP_ACT_ALLOW"}, *tested],
    }
