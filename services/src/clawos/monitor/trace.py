"""What one call really did, gathered from its events: what it ran, which files, which connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clawos.core.parse import Record
from clawos.monitor.event import Event, utc

PATHS_MAX = 200


class Ran(Record, frozen=True):
    time: str
    path: str
    args: tuple[str, ...]
    pid: int


class Files(Record, frozen=True):
    """Paths, each once, in the order of their first use."""

    read: tuple[str, ...]
    written: tuple[str, ...]
    removed: tuple[str, ...]


class Trace(Record, frozen=True):
    call: str
    tool: str
    session: str
    user: int | None
    began: str
    programs: tuple[Ran, ...]
    files: Files
    connections: tuple[str, ...]
    other: tuple[str, ...]
    """Whatever else it did, in words."""
    alerts: tuple[dict[str, Any], ...]
    complete: bool
    """False where more happened than is kept."""


_ADDRESSED = {
    "connect": "connected to",
    "bind": "took the address",
    "listen": "listened on",
    "accept": "was called by",
}


def files_of(events: Iterable[Event]) -> Files:
    read: dict[str, None] = {}
    written: dict[str, None] = {}
    removed: dict[str, None] = {}
    for event in events:
        own = event.own
        match event.kind:
            case "open":
                (written if own["write"] else read)[own["path"]] = None
            case "create" | "chmod":
                written[own["path"]] = None
            case "unlink":
                removed[own["path"]] = None
            case "rename":
                removed[own["path"]] = None
                written[own["to"]] = None
            case "link":
                written[own["to"]] = None
    return Files(
        read=tuple(path for path in read if path not in written)[:PATHS_MAX],
        written=tuple(written)[:PATHS_MAX],
        removed=tuple(removed)[:PATHS_MAX],
    )


def programs_of(events: Iterable[Event], offset_ns: int) -> tuple[Ran, ...]:
    return tuple(
        Ran(
            time=utc(event.time_ns, offset_ns),
            path=event.own["path"],
            args=tuple(event.own.get("args") or ()),
            pid=event.tgid,
        )
        for event in events
        if event.kind == "exec"
    )[:PATHS_MAX]


def connections_of(events: Iterable[Event]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for event in events:
        if event.kind in _ADDRESSED:
            own = event.own
            where = own.get("path") or f"{own.get('address') or 'any'} port {own.get('port')}"
            found[f"{_ADDRESSED[event.kind]} {where}"] = None
        elif event.kind == "dns":
            found[f"asked for the name {event.own['name']}"] = None
    return tuple(found)[:PATHS_MAX]


_ELSE = {
    "module": "loaded the kernel module {name}",
    "mount": "mounted {source} on {path}",
    "ptrace": "took hold of process {target}",
    "setid": "became user {new_uid}",
    "namespace": "changed its namespaces ({how})",
    "bpf": "used bpf()",
    "kill": "sent signal {signal} to process {target}",
    "mprotect": "made memory writable and executable",
    "denied": "was stopped by the kernel ({hook})",
    "anomaly": "did what this tool never did (score {score})",
}


def other_of(events: Iterable[Event]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for event in events:
        if event.kind in _ELSE:
            found[_ELSE[event.kind].format_map(event.own)] = None
    return tuple(found)[:PATHS_MAX]
