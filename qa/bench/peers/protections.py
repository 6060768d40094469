"""What each arm protects with, as a program inside finds it, whatever the plan and the peers promise."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


@dataclass
class Seen:
    """The lines of `payload probe`."""

    namespaces: dict[str, str] = field(default_factory=dict)
    uid_map: list[tuple[int, ...]] = field(default_factory=list)
    status: dict[str, str] = field(default_factory=dict)
    reopen: str = ""

    @classmethod
    def parse(cls, text: str) -> Seen:
        seen = cls()
        for line in text.splitlines():
            kind, _, rest = line.partition(" ")
            match kind:
                case "namespace":
                    name, _, target = rest.partition(" ")
                    seen.namespaces[name] = target
                case "uid_map":
                    seen.uid_map.append(tuple(map(int, rest.split())))
                case "status":
                    name, _, value = rest.partition(":")
                    seen.status[name] = value.strip()
                case "reopen":
                    seen.reopen = rest
        return seen


def outside(payload: Path) -> Seen:
    done = subprocess.run([payload, "probe"], capture_output=True, text=True, check=True)
    return Seen.parse(done.stdout)


def row(name: str, inside: Seen, out: Seen, *, memory_limit: bool, time_limit: bool) -> dict[str, object]:
    """A row of the table: each cell says what was found."""
    own = [n for n in _NAMESPACES if inside.namespaces.get(n) and inside.namespaces[n] != out.namespaces[n]]
    capabilities = [int(inside.status.get(n, "0"), 16) for n in ("CapEff", "CapPrm", "CapInh", "CapAmb")]
    return {
        "arm": name,
        "namespaces": f"all {len(own)}" if len(own) == len(_NAMESPACES) else " ".join(own) or "none",
        "uid map": _map(inside.uid_map, inside.namespaces == out.namespaces),
        "memory limit": _word(memory_limit),
        "Landlock": _word(inside.reopen == "EACCES"),
        "seccomp": _word(inside.status.get("Seccomp") == "2"),
        "capabilities": "none" if not any(capabilities) else "some",
        "bounding set": "empty" if not int(inside.status.get("CapBnd", "0"), 16) else "not empty",
        "no_new_privs": _word(inside.status.get("NoNewPrivs") == "1"),
        "time limit": _word(time_limit),
    }


def _map(lines: Sequence[tuple[int, ...]], host: bool) -> str:
    ids = sum(line[2] for line in lines)
    if host or ids >= 2**32 - 1:
        return "none"
    return "1 id" if ids == 1 else f"{ids} ids"


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
