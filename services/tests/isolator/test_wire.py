"""The plan's binary form: both sides agree, and the launcher refuses whatever is not exactly it."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawos.isolator.handover import sealed
from clawos.isolator.plan import Access, Mount, Proxy
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse
from clawos.isolator.wire import Exited, Kind, Refused, Started, Usage, decode_report, encode, landlock

from .conftest import ISOLATOR, spec_text
from .rig import INIT, Rig, read_socket

SIOCGSKNS = 0x894C


@pytest.fixture
def rig(launcher_path: Path) -> Iterator[Rig]:
    with Rig(launcher_path) as running:
        yield running


@pytest.fixture
def plan_bytes(planner: Planner) -> bytes:
    return encode(planner.plan(parse(spec_text("/usr/bin/true"))))


@pytest.mark.parametrize(("prefix", "numbers"), [("KIND", Kind), ("MOUNT", Mount)])
def test_both_sides_have_the_same_numbers(prefix: str, numbers: type[Kind] | type[Mount]) -> None:
    header = (ISOLATOR / "launcher" / "launch.h").read_text()
    theirs = {name: int(number) for name, number in re.findall(rf"\b{prefix}_([A-Z]+) = (\d+)", header)}
    renamed = {"DEVICES": "DEV"}
    ours = {renamed.get(name, name): m.value for name, m in numbers.__members__.items() if m.value}
    assert ours == theirs


def test_landlock_has_the_kernels_numbers() -> None:
    header = Path("/usr/include/linux/landlock.h").read_text()
    bits = {name: 1 << int(bit) for name, bit in re.findall(r"ACCESS_FS_(\w+)\s+\(1ULL << (\d+)\)", header)}
    made = {"REG", "DIR", "SOCK", "FIFO", "SYM"}
    writes = {
        "WRITE_FILE",
        "TRUNCATE",
        "REFER",
        "REMOVE_DIR",
        "REMOVE_FILE",
        *(f"MAKE_{name}" for name in made),
    }
    words = {
        Access.EXEC: {"EXECUTE"},
        Access.READ: {"READ_FILE", "READ_DIR"},
        Access.LIST: {"READ_DIR"},
        Access.WRITE: writes,
        Access.IOCTL: {"IOCTL_DEV"},
    }
    assert set(words) == set(Access)
    for access, names in words.items():
        assert landlock(access) == sum(bits[name] for name in names), access
    assert landlock(Access.READ | Access.EXEC) == bits["READ_FILE"] | bits["READ_DIR"] | bits["EXECUTE"]
    assert not sum(bits[name] for name in ("MAKE_CHAR", "MAKE_BLOCK")) & landlock(~Access(0))


def test_a_good_plan_runs(rig: Rig, plan_bytes: bytes) -> None:
    reports = [decode_report(line) for line in rig.run(plan_bytes)]
    assert isinstance(reports[0], Started)
    assert reports[1] == Exited(0)
    assert isinstance(reports[2], Usage)


def mutations(data: bytes) -> dict[str, bytes]:
    header, body = data[:40], data[40:]

    def sized(new_body: bytes) -> bytes:
        return header[:8] + struct.pack("<I", 40 + len(new_body)) + header[12:] + new_body

    def record(kind: int, a: bytes = b"", b: bytes = b"", flags: int = 0, number: int = 0) -> bytes:
        return struct.pack("<IIQII", kind, flags, number, len(a), len(b)) + a + b

    return {
        "nothing": b"",
        "no header": data[:20],
        "another magic": b"CLAWPLN2" + data[8:],
        "a wrong size": data + b"\0",
        "cut short": sized(body[:-1]),
        "half a record": sized(body + b"\0" * 10),
        "uid 0": data[:12] + b"\0\0\0\0" + data[16:],
        "gid 0": data[:16] + b"\0\0\0\0" + data[20:],
        "no deadline": data[:20] + b"\0\0\0\0" + data[24:],
        "an unknown kind": sized(body + record(99)),
        "kind 0": sized(body + record(0, b"x\0")),
        "a string without end": sized(body + record(Kind.ARG, b"abc")),
        "a string with an inner end": sized(body + record(Kind.ARG, b"a\0b\0")),
        "an empty string": sized(body + record(Kind.ENV)),
        "a path with ..": sized(body + record(Kind.DIR, b"/a/../b\0")),
        "a path with .": sized(body + record(Kind.DIR, b"/./b\0")),
        "a relative path": sized(body + record(Kind.DIR, b"a\0")),
        "a path with //": sized(body + record(Kind.DIR, b"/a//b\0")),
        "a path that ends in /": sized(body + record(Kind.DIR, b"/a/\0")),
        "a relative source": sized(body + record(Kind.BIND, b"/a\0", b"b\0")),
        "unknown mount flags": sized(body + record(Kind.BIND, b"/a\0", b"/b\0", flags=64)),
        "unknown access": sized(body + record(Kind.ALLOW, b"/\0", flags=1 << 16)),
        "two filters": sized(body + record(Kind.SECCOMP, b"\0" * 8)),
        "a directory in what is fresh for each call": sized(body + record(Kind.DIR, b"/tmp/x\0")),
        "host uid 0": data[:28] + b"\0\0\0\0" + data[32:],
        "half an instruction": sized(body + record(Kind.SECCOMP, b"\0" * 9)),
        "two host names": sized(body + record(Kind.HOSTNAME, b"x\0")),
        "two directories": sized(body + record(Kind.CWD, b"/\0")),
        "group 0": sized(body + record(Kind.GROUP, number=0)),
        "an unknown limit": sized(body + record(Kind.RLIMIT, flags=99)),
        "port 0": sized(body + record(Kind.CONNECT)),
        "a port that is none": sized(body + record(Kind.CONNECT, number=65536)),
        "two ports": sized(body + record(Kind.CONNECT, number=80) * 2),
        "too many arguments": sized(body + record(Kind.ARG, b"x\0") * 1100),
        "sizes that overflow": sized(body + struct.pack("<IIQII", 1, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)),
        "no program": sized(record(Kind.CWD, b"/\0")),
    }


def test_whatever_is_not_a_plan_is_refused(rig: Rig, plan_bytes: bytes) -> None:
    for what, data in mutations(plan_bytes).items():
        reports = rig.run(data)
        assert [r.rsplit(" ", 1)[0] for r in reports] == ["refused plan"], what


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 100_000), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4
    )
)
def test_a_damaged_plan_never_crashes_the_launcher(
    rig: Rig, plan_bytes: bytes, edits: list[tuple[int, bytes]]
) -> None:
    """Whatever happens is told in the launcher's own words."""
    data = bytearray(plan_bytes)
    for at, new in edits:
        at %= len(data)
        data[at : at + len(new)] = new
    data[20:24] = struct.pack("<I", 2000)  # its deadline stays short
    reports = [decode_report(line) for line in rig.run(bytes(data))]
    assert reports
    assert isinstance(reports[0], Refused | Started | Usage)


def test_a_report_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="reported"):
        decode_report("hello world")


words = st.sampled_from(
    ["refused", "started", "exited", "usage", "exit", "wall", "7", "-1", "٣", "1e3", "9" * 30]
)


@given(st.lists(words | st.text(max_size=8), max_size=6).map(" ".join))
def test_any_line_is_a_report_or_an_error(line: str) -> None:
    try:
        report = decode_report(line)
    except ValueError:
        return
    assert isinstance(report, Refused | Started | Exited | Usage)


def test_the_launcher_wants_its_arguments(launcher_path: Path) -> None:
    for words in ("", "3 a b", "x a b 1", "3 a b y", "3 a b 1 --help"):
        command = [str(launcher_path), *words.split()]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def test_a_plan_that_can_change_is_no_plan(rig: Rig, plan_bytes: bytes) -> None:
    open_fd = os.memfd_create("plan", os.MFD_ALLOW_SEALING)
    os.write(open_fd, plan_bytes)
    assert rig.build(open_fd) == (["refused plan 74"], None)
    assert rig.run(plan_bytes)[0].startswith("started"), "sealed, it is"
    os.close(open_fd)


def test_a_request_without_all_its_descriptors_is_refused(rig: Rig, plan_bytes: bytes) -> None:
    plan_fd = sealed(plan_bytes)
    null = os.open(os.devnull, os.O_RDWR)
    _, root = rig.build(plan_fd)
    assert root is not None
    for streams in ((null,), (null, null), (null, null, null, null)):
        with rig.start(plan_fd, root, streams) as status:
            assert read_socket(status) == b"refused request 74\n"
    with rig.start(plan_fd, root, (null, null, null)) as status:
        assert read_socket(status).startswith(b"started")
    with rig.start(plan_fd, null, (null, null, null)) as status:
        assert read_socket(status).startswith(b"refused root "), "what is no root is none"
    for fd in (plan_fd, null, root):
        os.close(fd)


def test_a_plan_that_connects_needs_a_way_and_no_other_may_have_one(rig: Rig, planner: Planner) -> None:
    spec = parse(spec_text("/usr/bin/true", network="egress"))
    connects = sealed(encode(planner.plan(spec, Proxy("198.19.255.1", 8118))))
    plain = sealed(encode(planner.plan(spec)))
    null = os.open(os.devnull, os.O_RDWR)
    _, root = rig.build(plain)
    assert root is not None
    network, route = rig.lend()
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    for plan, way, answer in (
        (connects, (), "refused request 74\n"),
        (plain, (network,), "refused request 74\n"),
        (connects, (network, network), "refused request 74\n"),
        (connects, (null,), "refused network 22\n"),
        (connects, (route,), "refused network 22\n"),
        (connects, (ours,), "refused network 1\n"),  # the machine's own: the launcher may not enter it
        (connects, (network,), "started"),
        (plain, (), "started"),
    ):
        with rig.start(plan, root, (null, null, null), way) as status:
            assert read_socket(status).decode().startswith(answer), (way, answer)
    for fd in (connects, plain, null, root, network, route, ours):
        os.close(fd)


def test_each_network_namespace_is_lent_once(rig: Rig) -> None:
    lent = [rig.lend() for _ in range(20)]
    assert len({os.fstat(network).st_ino for network, _ in lent}) == 20
    for network, route in lent:
        with socket.socket(fileno=route) as inside:
            assert (inside.family, inside.proto) == (socket.AF_NETLINK, 0)
            named = fcntl.ioctl(inside, SIOCGSKNS)
        assert os.path.samestat(os.fstat(named), os.fstat(network))
        os.close(named)
        os.close(network)


def test_the_cgroup_is_not_optional(launcher_path: Path, plan_bytes: bytes) -> None:
    """But for a launcher that was told so on its command line."""
    null = os.open(os.devnull, os.O_RDWR)
    with Rig(launcher_path, leaf=null) as rig:
        rig._leaf = None
        assert rig.run(plan_bytes) == ["refused request 74"]
    os.close(null)


def test_ids_that_were_not_named_are_refused(
    launcher_path: Path, plan_bytes: bytes, planner: Planner
) -> None:
    plan = planner.plan(parse(spec_text("/usr/bin/true")))
    users, groups = f"0 0 1\n{plan.uid} {plan.uid} 1\n{INIT} {INIT} 1\n", f"0 0 1\n{plan.gid} {plan.gid} 1\n"
    with Rig(launcher_path, uid_map=users, gid_map=groups) as rig:
        assert rig.run(encode(plan))[0].startswith("started")
        assert rig.run(encode(plan, plan.uid + 1)) == ["refused id-map 1"]
