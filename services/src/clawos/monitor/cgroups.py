"""What our services and the sandboxes use, as cgroupfs counts it. Read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup/system.slice")
_ISOLATOR = "clawos-isolator.service"
_CALL = "call-"


@dataclass(frozen=True)
class Usage:
    name: str
    cpu_s: float
    memory_bytes: int


def services(root: Path = ROOT) -> list[Usage]:
    return [
        used
        for path in sorted(root.glob("clawos-*.service"))
        if (used := _usage(path, path.name.removesuffix(".service"))) is not None
    ]


def sandboxes(root: Path = ROOT) -> list[Usage]:
    """By call id."""
    return list(_sandboxes(root / _ISOLATOR))


def _sandboxes(isolator: Path) -> Iterator[Usage]:
    for path in sorted(isolator.glob(f"{_CALL}*")):
        if (used := _usage(path, path.name.removeprefix(_CALL))) is not None:
            yield used


def _usage(path: Path, name: str) -> Usage | None:
    """None for one that has just ended."""
    try:
        pairs = (line.split() for line in (path / "cpu.stat").read_text().splitlines())
        cpu = {key: int(value) for key, value in pairs}
        memory = int((path / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return Usage(name, cpu.get("usage_usec", 0) / 1e6, memory)
