"""The fields that rules may name, by kind of event, and how each is got."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from clawos.monitor.event import Event

Getter = Callable[[Event], Any]


class Type(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    LIST = "list"


_T, _N, _F, _L = Type

OWN: Mapping[str, Mapping[str, Type]] = {
    "fork": {"child_pid": _N, "child_start_ns": _N},
    "exec": {
        "path": _T,
        "args": _L,
        "args_truncated": _F,
        "loader": _L,
        "links": _N,
        "inode": _N,
        "device": _N,
    },
    "exit": {"code": _N, "signal": _N},
    "open": {"path": _T, "flags": _N, "mode": _N, "write": _F},
    "create": {"path": _T, "mode": _N},
    "unlink": {"path": _T},
    "rename": {"path": _T, "to": _T},
    "chmod": {"path": _T, "mode": _N},
    "link": {"path": _T, "to": _T, "symbolic": _F},
    "socket": {"family": _N, "type": _N, "protocol": _N},
    "connect": {"family": _N, "address": _T, "port": _N, "path": _T},
    "bind": {"family": _N, "address": _T, "port": _N, "path": _T},
    "accept": {"family": _N, "address": _T, "port": _N, "path": _T},
    "listen": {"backlog": _N, "address": _T, "port": _N},
    "dns": {"name": _T, "type": _N},
    "module": {"name": _T},
    "mount": {"source": _T, "path": _T, "type": _T, "flags": _N},
    "ptrace": {"target": _N, "request": _N},
    "setid": {"old_uid": _N, "new_uid": _N, "old_gid": _N, "new_gid": _N},
    "capset": {"effective": _N, "permitted": _N},
    "namespace": {"flags": _N, "how": _T},
    "bpf": {"command": _N, "name": _T},
    "kill": {"target": _N, "signal": _N},
    "mprotect": {"address": _N, "size": _N},
    "denied": {"hook": _T, "errno": _N, "path": _T, "address": _T, "port": _N},
    "anomaly": {"score": _N, "reasons": _L},
    "lost": {"count": _N, "of": _T},
}
"""What events of a kind have of their own."""

_COMMON = {
    "time_ns": _N,
    "call": _T,
    "cgroup": _N,
    "pid": _N,
    "tgid": _N,
    "start_ns": _N,
    "ppid": _N,
    "uid": _N,
    "gid": _N,
    "comm": _T,
}


def base(path: str) -> str:
    return path.rpartition("/")[2]


def _exe(event: Event) -> str:
    return event.process.exe if event.process else ""


def _parent(event: Event) -> str:
    return event.process.parent if event.process else ""


def _lineage(event: Event) -> tuple[str, ...]:
    return event.process.lineage if event.process else ()


def _tool(event: Event) -> str:
    process = event.process
    return process.sandbox.tool if event.call and process and process.sandbox else ""


def _session(event: Event) -> str:
    process = event.process
    return process.sandbox.session if event.call and process and process.sandbox else ""


def _who(event: Event) -> str:
    """Who did it, in words."""
    tool = _tool(event)
    if event.call:
        return f"the tool {tool} (call {event.call})" if tool else f"call {event.call}"
    return f"{base(_exe(event)) or event.comm} (process {event.tgid}, user {event.uid})"


class _Once:
    """A field that takes work, for the event that is judged now: dozens of rules ask for it."""

    def __init__(self, make: Getter) -> None:
        self._make = make
        self._event: Event | None = None
        self._value: Any = None

    def __call__(self, event: Event) -> Any:
        if event is not self._event:
            self._event, self._value = event, self._make(event)
        return self._value


_DERIVED: Mapping[str, tuple[Type, Getter]] = {
    "exe": (_T, _exe),
    "exe_name": (_T, lambda event: base(_exe(event))),
    "parent": (_T, _parent),
    "parent_name": (_T, _Once(lambda event: base(_parent(event)))),
    "ancestors": (_L, _lineage),
    "ancestor_names": (_L, _Once(lambda event: [base(exe) for exe in _lineage(event)])),
    "tool": (_T, _tool),
    "session": (_T, _session),
    "inside": (_F, lambda event: bool(event.call)),
    "process": (_T, lambda event: f"{event.tgid}-{event.start_ns}"),
    "parent_process": (_T, lambda event: f"{event.ppid}-{event.parent_start_ns}"),
    "who": (_T, _who),
}
_OF_PATH: Mapping[str, tuple[Type, Getter]] = {
    "program": (_T, _Once(lambda event: base(event.own.get("path") or ""))),
    "directory": (_T, lambda event: (event.own.get("path") or "").rpartition("/")[0] or "/"),
}


def _programs(event: Event) -> tuple[str, ...]:
    """A script bears its interpreter's path and its own name; so does what was started by a link."""
    program, name = base(event.own.get("path") or ""), event.comm
    return (program,) if program.startswith(name) else (program, name)


_OF_EXEC: Mapping[str, tuple[Type, Getter]] = {
    "program": (_L, _Once(_programs)),
    "command": (_T, _Once(lambda event: " ".join(event.own.get("args") or ()))),
    "argc": (_N, lambda event: len(event.own.get("args") or ())),
}


_O_TRUNC = 0o1000


def _changed(event: Event) -> str | None:
    """The file that is written, made or put in another's place."""
    own = event.own
    if event.kind == "open":
        return own["path"] if own.get("write") else None
    return own.get("to") if event.kind in ("rename", "link") else own.get("path")


def _cleared(event: Event) -> str | None:
    """The file whose content is gone from where it was."""
    own = event.own
    if event.kind == "open":
        return own["path"] if own.get("write") and own.get("flags", 0) & _O_TRUNC else None
    return own.get("path")


_CHANGING = ("open", "create", "rename", "link", "chmod")
_CLEARING = ("open", "unlink", "rename")


def _own(name: str) -> Getter:
    return lambda event: event.own.get(name)


def _common(name: str) -> Getter:
    return {
        "time_ns": lambda event: event.time_ns,
        "call": lambda event: event.call,
        "cgroup": lambda event: event.cgroup,
        "pid": lambda event: event.pid,
        "tgid": lambda event: event.tgid,
        "start_ns": lambda event: event.start_ns,
        "ppid": lambda event: event.ppid,
        "uid": lambda event: event.uid,
        "gid": lambda event: event.gid,
        "comm": lambda event: event.comm,
    }[name]


def of_kind(kind: str) -> dict[str, tuple[Type, Getter]]:
    """All fields that events of a kind have."""
    found: dict[str, tuple[Type, Getter]] = dict(_DERIVED)
    found |= {name: (kind_of, _common(name)) for name, kind_of in _COMMON.items()}
    found["kind"] = (_T, lambda event: event.kind)
    if "path" in OWN[kind]:
        found |= _OF_PATH
    if kind == "exec":
        found |= _OF_EXEC
        found["file"] = (_T, _own("path"))
    if kind in _CHANGING:
        found["changed"] = found["file"] = (_T, _changed)
    if kind in _CLEARING:
        found["cleared"] = (_T, _cleared)
    return found | {name: (kind_of, _own(name)) for name, kind_of in OWN[kind].items()}


def of_kinds(kinds: Iterable[str]) -> dict[str, tuple[Type, Getter]]:
    """The fields that all of these kinds have."""
    first, *others = (of_kind(kind) for kind in kinds)
    return {name: field for name, field in first.items() if all(name in other for other in others)}
