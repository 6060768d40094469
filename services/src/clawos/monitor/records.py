"""Records of the ring, as `ebpf/events.h` lays them out, made into events.

The kernel side writes them; but the texts are anybody's: paths that are no UTF-8, questions that are none.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

from clawos.monitor.dns import question
from clawos.monitor.event import Event
from clawos.monitor.kinds import HOOKS, Kind

log = logging.getLogger(__name__)

VERSION = 1

# By the layout's name in events.h, as the test asks for it. struct event, then what each kind adds.
HEAD = "HBBIQQQIIQQIIIHH16s"
ADDRESS = "HH16sI"
OWN = {
    Kind.FORK: "QI4x",
    Kind.EXEC: "QIIII8I",
    Kind.EXIT: "II",
    Kind.OPEN: "III4x",
    Kind.CREATE: "I4x",
    Kind.UNLINK: "I4x",
    Kind.RENAME: "I4x",
    Kind.CHMOD: "I4x",
    Kind.LINK: "I4x",
    Kind.SOCKET: "III4x",
    Kind.CONNECT: ADDRESS + "iI",
    Kind.BIND: ADDRESS,
    Kind.LISTEN: ADDRESS + "I4x",
    Kind.ACCEPT: ADDRESS,
    Kind.DNS: ADDRESS,
    Kind.MODULE: "56s",
    Kind.MOUNT: "Q16s",
    Kind.PTRACE: "Ii",
    Kind.SETID: "IIII",
    Kind.CAPSET: "QQ",
    Kind.NAMESPACE: "II",
    Kind.BPF: "I4x16s",
    Kind.KILL: "II",
    Kind.MPROTECT: "QQ",
    Kind.DENIED: "Ii" + ADDRESS,
}
_ARGS_TRUNCATED = 1
_LOADER = {2: "LD_PRELOAD", 4: "LD_AUDIT", 8: "LD_LIBRARY_PATH", 16: "GLIBC_TUNABLES"}
"""Flags of exec: names in the environment to which the dynamic linker listens."""
_HOW = {1: "unshare", 2: "setns", 3: "clone"}
_DIGITS = 16

_HEAD = struct.Struct("=" + HEAD)
Own = dict[str, Any]


class RecordBroken(Exception):
    """A record that is not as events.h says: another version's, or too short for what it says it holds."""


def decode(records: Iterable[bytes]) -> list[Event]:
    """One that cannot be read is logged, and left out."""
    events = []
    for record in records:
        try:
            events.append(event_of(record))
        except RecordBroken as error:
            log.warning("the kernel side wrote %s", error)
    return events


def event_of(record: bytes) -> Event:
    """Raises RecordBroken."""
    try:
        size, kind, version, index, time_ns, cgroup, call, *who, first, second, comm = _HEAD.unpack_from(
            record
        )
    except struct.error:
        raise RecordBroken(f"a record of {len(record)} bytes") from None
    reader = _READERS.get(kind)
    if version != VERSION or reader is None:
        raise RecordBroken(f"a record of kind {kind}, version {version}")
    layout, make, word = reader
    texts = _HEAD.size + layout.size
    if size != len(record) or texts + first + second != size:
        raise RecordBroken(
            f"a record {word} of {len(record)} bytes that says {size}, texts of {first} and {second}"
        )
    middle = texts + first
    own = make(layout.unpack_from(record, _HEAD.size), record[texts:middle], record[middle:])
    pid, tgid, start_ns, parent_start_ns, parent, uid, gid = who
    return Event(
        word,
        time_ns,
        _call(call, index) if call else "",
        cgroup,
        pid,
        tgid,
        start_ns,
        parent,
        parent_start_ns,
        uid,
        gid,
        _name(comm),
        own,
    )


def _call(call: int, index: int) -> str:
    """As the isolator names it."""
    name = f"{call:0{_DIGITS}x}"
    return f"{name}-{index - 1}" if index else name


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def _name(data: bytes) -> str:
    """One with a fixed place, up to the first 0."""
    return data.partition(b"\0")[0].decode(errors="backslashreplace")


def _address(family: int, port: int, address: bytes) -> Own:
    if family == socket.AF_INET:
        return {"family": family, "address": socket.inet_ntop(socket.AF_INET, address[:4]), "port": port}
    if family == socket.AF_INET6:
        return {"family": family, "address": socket.inet_ntop(socket.AF_INET6, address), "port": port}
    return {"family": family, "address": "", "port": port}


def _fork(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    start_ns, pid = own
    return {"child_pid": pid, "child_start_ns": start_ns}


def _exec(own: tuple[Any, ...], path: bytes, args: bytes) -> Own:
    inode, device, links, count, flags, *ancestors = own
    words = args.removesuffix(b"\0").split(b"\0")[:count]
    return {
        "path": _text(path),
        "args": [_text(word) for word in words],
        "args_truncated": bool(flags & _ARGS_TRUNCATED),
        "loader": [name for bit, name in _LOADER.items() if flags & bit],
        "links": links,
        "inode": inode,
        "device": device,
        "ancestors_pids": [pid for pid in ancestors if pid],
    }


def _exit(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    code, signal = own
    return {"code": code, "signal": signal}


def _open(own: tuple[Any, ...], path: bytes, _: bytes) -> Own:
    flags, mode, write = own
    return {"path": _text(path), "flags": flags, "mode": mode, "write": bool(write)}


def _with_mode(own: tuple[Any, ...], path: bytes, _: bytes) -> Own:
    return {"path": _text(path), "mode": own[0]}


def _unlink(own: tuple[Any, ...], path: bytes, _: bytes) -> Own:
    return {"path": _text(path), "directory": bool(own[0])}


def _rename(own: tuple[Any, ...], path: bytes, to: bytes) -> Own:
    return {"path": _text(path), "to": _text(to), "flags": own[0]}


def _link(own: tuple[Any, ...], path: bytes, to: bytes) -> Own:
    return {"path": _text(path), "to": _text(to), "symbolic": bool(own[0])}


def _socket(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    family, kind, protocol = own
    return {"family": family, "type": kind, "protocol": protocol}


def _connect(own: tuple[Any, ...], path: bytes, _: bytes) -> Own:
    family, port, address, _spare, error, kind = own
    return _address(family, port, address) | {"path": _text(path), "errno": error, "type": kind}


def _end(own: tuple[Any, ...], path: bytes, _: bytes) -> Own:
    return _address(*own[:3]) | {"path": _text(path)}


def _listen(own: tuple[Any, ...], path: bytes, _: bytes) -> Own:
    return _address(*own[:3]) | {"path": _text(path), "backlog": own[4]}


def _dns(own: tuple[Any, ...], sent: bytes, _: bytes) -> Own:
    name, kind = question(sent)
    return _address(*own[:3]) | {"name": name, "type": kind}


def _module(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    return {"name": _name(own[0])}


def _mount(own: tuple[Any, ...], path: bytes, source: bytes) -> Own:
    flags, kind = own
    return {"source": _text(source), "path": _text(path), "type": _name(kind), "flags": flags}


def _ptrace(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    return {"target": own[0], "request": own[1]}


def _setid(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    return dict(zip(("old_uid", "new_uid", "old_gid", "new_gid"), own, strict=True))


def _capset(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    return {"effective": own[0], "permitted": own[1]}


def _namespace(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    return {"flags": own[0], "how": _HOW.get(own[1], "")}


def _bpf(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    return {"command": own[0], "name": _name(own[1])}


def _kill(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    return {"target": own[0], "signal": own[1]}


def _mprotect(own: tuple[Any, ...], _1: bytes, _2: bytes) -> Own:
    return {"address": own[0], "size": own[1]}


def _denied(own: tuple[Any, ...], path: bytes, _: bytes) -> Own:
    hook, error, *address, _spare = own
    return _address(*address) | {"hook": HOOKS.get(hook, str(hook)), "errno": error, "path": _text(path)}


_MAKERS: dict[Kind, Callable[[tuple[Any, ...], bytes, bytes], Own]] = {
    Kind.FORK: _fork,
    Kind.EXEC: _exec,
    Kind.EXIT: _exit,
    Kind.OPEN: _open,
    Kind.CREATE: _with_mode,
    Kind.UNLINK: _unlink,
    Kind.RENAME: _rename,
    Kind.CHMOD: _with_mode,
    Kind.LINK: _link,
    Kind.SOCKET: _socket,
    Kind.CONNECT: _connect,
    Kind.BIND: _end,
    Kind.LISTEN: _listen,
    Kind.ACCEPT: _end,
    Kind.DNS: _dns,
    Kind.MODULE: _module,
    Kind.MOUNT: _mount,
    Kind.PTRACE: _ptrace,
    Kind.SETID: _setid,
    Kind.CAPSET: _capset,
    Kind.NAMESPACE: _namespace,
    Kind.BPF: _bpf,
    Kind.KILL: _kill,
    Kind.MPROTECT: _mprotect,
    Kind.DENIED: _denied,
}
_READERS = {int(kind): (struct.Struct("=" + OWN[kind]), make, kind.word) for kind, make in _MAKERS.items()}
