"""Records made into events: each kind's fields, and nothing but RecordBroken for what is malformed."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawos.monitor.dns import question
from clawos.monitor.kinds import Kind
from clawos.monitor.records import HEAD, OWN, VERSION, RecordBroken, decode, event_of

CALL = 0x0123456789ABCDEF
IPV4, IPV6 = socket.AF_INET, socket.AF_INET6


def record(
    kind: int,
    *own: Any,
    first: bytes = b"",
    second: bytes = b"",
    call: int = CALL,
    index: int = 0,
    version: int = VERSION,
) -> bytes:
    body = struct.pack("=" + OWN[Kind(kind)], *own)
    size = struct.calcsize("=" + HEAD) + len(body) + len(first) + len(second)
    who = (11, 10, 5_000, 4_000, 9, 1000, 100)
    head = struct.pack(
        "=" + HEAD, size, kind, version, index, 777, 42, call, *who, len(first), len(second), b"bash\0rest"
    )
    return head + body + first + second


def address(family: int, port: int, data: bytes) -> tuple[int, int, bytes, int]:
    return family, port, data, 0


HOME = socket.inet_pton(IPV4, "127.0.0.1")
QUESTION = struct.pack(">HHHHHH", 7, 256, 1, 0, 0, 0) + b"\3www\7example\3org\0" + struct.pack(">HH", 28, 1)
CASES: list[tuple[bytes, str, dict[str, Any]]] = [
    (record(Kind.FORK, 9_000, 12), "fork", {"child_pid": 12, "child_start_ns": 9_000}),
    (
        record(Kind.EXEC, 5, 6, 1, 2, 0, 9, 1, *[0] * 6, first=b"/bin/x", second=b"x\0\0"),
        "exec",
        {"path": "/bin/x", "args": ["x", ""], "args_truncated": False, "inode": 5, "device": 6, "links": 1}
        | {"ancestors_pids": [9, 1], "loader": []},
    ),
    (
        record(Kind.EXEC, 5, 6, 0, 9, 1 | 2 | 16, *[0] * 8, first=b"/\xff", second=b"x\0cut"),
        "exec",
        {"path": "/\\xff", "args": ["x", "cut"], "args_truncated": True, "inode": 5, "device": 6, "links": 0}
        | {"ancestors_pids": [], "loader": ["LD_PRELOAD", "GLIBC_TUNABLES"]},
    ),
    (record(Kind.EXIT, 3, 0), "exit", {"code": 3, "signal": 0}),
    (
        record(Kind.OPEN, 0o2, 0o100644, 1, first=b"/etc/x"),
        "open",
        {"path": "/etc/x", "flags": 2, "mode": 0o100644, "write": True},
    ),
    (record(Kind.CREATE, 0o40755, first=b"/d"), "create", {"path": "/d", "mode": 0o40755}),
    (record(Kind.UNLINK, 1, first=b"/d"), "unlink", {"path": "/d", "directory": True}),
    (record(Kind.RENAME, 0, first=b"/a", second=b"/bc"), "rename", {"path": "/a", "to": "/bc", "flags": 0}),
    (record(Kind.CHMOD, 0o4755, first=b"/a"), "chmod", {"path": "/a", "mode": 0o4755}),
    (
        record(Kind.LINK, 1, first=b"/a", second=b"/b"),
        "link",
        {"path": "/a", "to": "/b", "symbolic": True},
    ),
    (record(Kind.SOCKET, 2, 1, 6), "socket", {"family": 2, "type": 1, "protocol": 6}),
    (
        record(Kind.CONNECT, *address(IPV4, 80, HOME), 111, 1),
        "connect",
        {"family": 2, "address": "127.0.0.1", "port": 80, "path": "", "errno": 111, "type": 1},
    ),
    (
        record(Kind.BIND, *address(IPV6, 53, b"\0" * 15 + b"\1")),
        "bind",
        {"family": 10, "address": "::1", "port": 53, "path": ""},
    ),
    (
        record(Kind.LISTEN, *address(1, 0, b""), 9, first=b"@x"),
        "listen",
        {"family": 1, "address": "", "port": 0, "path": "@x", "backlog": 9},
    ),
    (
        record(Kind.ACCEPT, *address(IPV4, 1234, HOME)),
        "accept",
        {"family": 2, "address": "127.0.0.1", "port": 1234, "path": ""},
    ),
    (
        record(Kind.DNS, *address(IPV4, 53, HOME), first=QUESTION),
        "dns",
        {"family": 2, "address": "127.0.0.1", "port": 53, "name": "www.example.org", "type": 28},
    ),
    (record(Kind.MODULE, b"dummy"), "module", {"name": "dummy"}),
    (
        record(Kind.MOUNT, 6, b"tmpfs", first=b"/mnt", second=b"what"),
        "mount",
        {"path": "/mnt", "source": "what", "type": "tmpfs", "flags": 6},
    ),
    (record(Kind.PTRACE, 5, -1), "ptrace", {"target": 5, "request": -1}),
    (record(Kind.SETID, 0, 1, 2, 3), "setid", {"old_uid": 0, "new_uid": 1, "old_gid": 2, "new_gid": 3}),
    (record(Kind.CAPSET, 1 << 40, 1), "capset", {"effective": 1 << 40, "permitted": 1}),
    (record(Kind.NAMESPACE, 0x20000, 1), "namespace", {"flags": 0x20000, "how": "unshare"}),
    (record(Kind.BPF, 5, b"prog"), "bpf", {"command": 5, "name": "prog"}),
    (record(Kind.KILL, 5, 9), "kill", {"target": 5, "signal": 9}),
    (record(Kind.MPROTECT, 1 << 40, 4096), "mprotect", {"address": 1 << 40, "size": 4096}),
    (
        record(Kind.DENIED, 3, 1, *address(IPV4, 25, HOME)),
        "denied",
        {"hook": "socket_connect", "errno": 1, "family": 2, "address": "127.0.0.1", "port": 25, "path": ""},
    ),
]


@pytest.mark.parametrize(("data", "kind", "own"), CASES)
def test_each_kind(data: bytes, kind: str, own: dict[str, Any]) -> None:
    event = event_of(data)
    assert (event.kind, event.own) == (kind, own)
    assert (event.time_ns, event.cgroup, event.call) == (777, 42, "0123456789abcdef")
    assert (event.pid, event.tgid, event.start_ns) == (11, 10, 5_000)
    assert (event.ppid, event.parent_start_ns, event.uid, event.gid) == (9, 4_000, 1000, 100)
    assert event.comm == "bash"


def test_every_kind_of_the_kernels_has_a_case() -> None:
    made_by_us = {Kind.ANOMALY, Kind.LOST}
    assert {kind for _, kind, _ in CASES} == {kind.word for kind in Kind if kind not in made_by_us}


@pytest.mark.parametrize(
    ("call", "index", "name"),
    [(0, 0, ""), (CALL, 0, "0123456789abcdef"), (5, 1, "0000000000000005-0"), (5, 12, "0000000000000005-11")],
)
def test_a_call_is_named_as_the_isolator_names_it(call: int, index: int, name: str) -> None:
    assert event_of(record(Kind.EXIT, 0, 0, call=call, index=index)).call == name


GOOD = record(Kind.RENAME, 0, first=b"/a", second=b"/b")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:50],
        GOOD[:-1],
        GOOD + b"x",
        record(Kind.EXIT, 0, 0, version=VERSION + 1),
        b"\x10\0\0\1" + GOOD[4:],
        GOOD[:2] + bytes([Kind.ANOMALY]) + GOOD[3:],
        GOOD[:2] + b"\xff" + GOOD[3:],
    ],
)
def test_what_is_malformed_is_named_so(data: bytes) -> None:
    with pytest.raises(RecordBroken):
        event_of(data)


def test_what_is_malformed_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert [event.kind for event in decode([GOOD, b"", GOOD[:-1], GOOD])] == ["rename", "rename"]
    assert len(caplog.records) == 2


@given(st.sampled_from([case[0] for case in CASES]), st.data())
def test_no_bytes_lead_to_anything_else(good: bytes, data: st.DataObject) -> None:
    """Any change of any of its bytes, any length."""
    changed = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for at, byte in data.draw(st.dictionaries(st.integers(0, len(good)), st.integers(0, 255))).items():
        if at < len(changed):
            changed[at] = byte
    with contextlib.suppress(RecordBroken):
        event_of(bytes(changed))


@given(st.sampled_from(sorted(OWN)), st.binary(max_size=600), st.binary(max_size=600))
def test_any_text_is_text(kind: Kind, first: bytes, second: bytes) -> None:
    own = struct.unpack("=" + OWN[kind], bytes(struct.calcsize("=" + OWN[kind])))
    event = event_of(record(kind, *own, first=first, second=second))
    for value in event.own.values():
        if isinstance(value, str):
            value.encode()


@given(st.binary(max_size=300))
def test_any_question_can_be_read(message: bytes) -> None:
    name, kind = question(message)
    assert name.isprintable()
    assert 0 <= kind <= 0xFFFF


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        (QUESTION, ("www.example.org", 28)),
        (QUESTION[:2] + b"\x81" + QUESTION[3:], ("", 0)),
        (QUESTION[:-6], ("", 0)),
        (QUESTION[:12] + b"\xc0\x0c\0\1\0\1", ("", 0)),
        (QUESTION[:12] + b"\3a.\n\0\0\1\0\1", ("a\\x2e\\x0a", 1)),
        (QUESTION[:12] + b"\0\0\2\0\1", ("", 2)),
    ],
)
def test_questions(message: bytes, asked: tuple[str, int]) -> None:
    assert question(message) == asked
