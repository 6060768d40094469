"""The arms of the benchmark: one way to start a program each, all from one plan of a real tool.

An arm is a command line for `spawner.c`, whose words starting with @ stand for what a call makes anew. Every
peer gets what it can do of the plan: the same tree, the ids if it takes them, the limits if it has them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from clawos.isolator.config import Config
from clawos.isolator.ids import host_ids
from clawos.isolator.plan import Plan
from clawos.isolator.wire import encode
from qa.bench.peers import bubblewrap, oci
from qa.bench.peers.place import Place

BARE, OURS, BWRAP = "no sandbox", "claw-launch", "bwrap"


@dataclass(frozen=True)
class Arm:
    name: str
    words: tuple[str, ...]
    time_limit: bool = False
    """Whether it ends what runs too long; the other protections are looked at inside."""

    @property
    def is_request(self) -> bool:
        return self.words[0] == "@request"

    def writing_to(self, file: Path) -> Arm:
        return dataclasses.replace(self, words=(*self.words, f"@output:{file}"))

    def renamed(self, name: str) -> Arm:
        return dataclasses.replace(self, name=name)


def with_argv(plan: Plan, argv: tuple[str, ...]) -> Plan:
    return dataclasses.replace(plan, argv=argv)


def all_of(place: Place, plan: Plan, label: str) -> list[Arm]:
    """Every way to start the plan's program. Without cgroups there are no limits either, and no systemd-run.

    `label` names what is written for them; another plan needs another.
    """
    scratch = place.scratch / label
    scratch.mkdir()
    etc = bubblewrap.write_etc(plan, scratch / "etc")
    filter_file = scratch / "filter.bpf"
    filter_file.write_bytes(plan.seccomp_filter)
    bwrap = place.peers / "usr/bin/bwrap"
    bundle = oci.write_bundle(place, plan, etc, scratch / "bundle")
    found = [
        Arm(BARE, plan.argv),
        Arm(OURS, _launcher(place, plan, scratch / "plan"), time_limit=True),
        Arm(BWRAP, bubblewrap.command(bwrap, plan, etc)),
        Arm("bwrap + our filter", bubblewrap.command(bwrap, plan, etc, "--seccomp", f"@open:{filter_file}")),
        Arm("crun", oci.crun(place, bundle)),
        Arm("runc", oci.runc(place, bundle)),
    ]
    if place.systemd:
        found.append(Arm("systemd-run", _systemd_run(plan), time_limit=True))
    return found


def _launcher(place: Place, plan: Plan, file: Path) -> tuple[str, ...]:
    """claw-launch itself, by the smallest program that can ask it for a sandbox."""
    ids = host_ids(Config())
    file.write_bytes(encode(plan, ids.calls[0]))
    words = ["@request", str(place.launcher), ids.uid_map, ids.gid_map, str(ids.init), str(file)]
    if place.cgroup:
        words += [f"@leaf:{place.cgroup}", *(f"@limit:{n}={value}" for n, value in place.limits.items())]
    return tuple(words)


def _systemd_run(plan: Plan) -> tuple[str, ...]:
    """The nearest that a transient unit has; its filter is systemd's own group of system calls."""
    quota = plan.quota
    properties = {
        "User": plan.run_as,
        "MemoryMax": quota.memory_bytes,
        "MemorySwapMax": 0,
        "TasksMax": quota.pids,
        "CPUQuota": f"{quota.cpu_percent}%",
        "RuntimeMaxSec": int(plan.wall_s),
        "LimitNOFILE": quota.open_files,
        "LimitFSIZE": quota.file_bytes,
        "LimitCORE": 0,
        "OOMPolicy": "kill",
        "TemporaryFileSystem": f"/:ro /tmp:size={quota.tmp_bytes}",
        "BindReadOnlyPaths": "/usr /bin /lib /lib64 /sbin /etc/alternatives /etc/ld.so.cache",
        "CapabilityBoundingSet": "",
        "LockPersonality": "yes",
        "MountAPIVFS": "yes",
        "NoNewPrivileges": "yes",
        "PrivateDevices": "yes",
        "PrivateIPC": "yes",
        "PrivateMounts": "yes",
        "PrivateNetwork": "yes",
        "PrivatePIDs": "yes",
        "PrivateUsers": "yes",
        "ProtectControlGroups": "yes",
        "ProtectHostname": "yes",
        "ProtectKernelTunables": "yes",
        "RestrictNamespaces": "yes",
        "RestrictSUIDSGID": "yes",
        "SystemCallArchitectures": "native",
        "SystemCallErrorNumber": "EPERM",
        "SystemCallFilter": "@system-service",
        "UMask": "0022",
    }
    words = ["/usr/bin/systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
    words += [f"--property={name}={value}" for name, value in properties.items()]
    return (*words, "--", *plan.argv)
