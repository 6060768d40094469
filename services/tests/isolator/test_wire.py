"""The plan's binary form: both sides agree, and the launcher refuses whatever is not exactly it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawos.isolator.plan import Access, Mount
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse
from clawos.isolator.wire import Exited, Kind, Refused, Started, Usage, decode_report, encode

from .conftest import ISOLATOR, read_all, spec_text


def launch(program: Path, data: bytes) -> list[str]:
    """What the launcher reports for these bytes as its plan."""
    plan_fd = os.memfd_create("plan")
    os.write(plan_fd, data)
    status_read, status_write = os.pipe()
    command = [str(program), str(plan_fd), str(status_write), "--test-without-cgroup"]
    subprocess.run(
        command, pass_fds=(plan_fd, status_write), check=False, stdout=subprocess.DEVNULL, timeout=20
    )
    os.close(plan_fd)
    os.close(status_write)
    return read_all(status_read).decode().splitlines()


@pytest.fixture
def plan_bytes(planner: Planner) -> bytes:
    return encode(planner.plan(parse(spec_text("/usr/bin/true"))))


@pytest.mark.parametrize(("prefix", "numbers"), [("KIND", Kind), ("MOUNT", Mount), ("ALLOW", Access)])
def test_both_sides_have_the_same_numbers(
    prefix: str, numbers: type[Kind] | type[Mount] | type[Access]
) -> None:
    header = (ISOLATOR / "launcher" / "launch.h").read_text()
    theirs = {name: int(number) for name, number in re.findall(rf"\b{prefix}_([A-Z]+) = (\d+)", header)}
    renamed = {"DEVICES": "DEV"}
    ours = {renamed.get(name, name): m.value for name, m in numbers.__members__.items() if m.value}
    assert ours == theirs


def test_a_good_plan_runs(launcher_path: Path, plan_bytes: bytes) -> None:
    reports = [decode_report(line) for line in launch(launcher_path, plan_bytes)]
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
        "unknown access": sized(body + record(Kind.ALLOW, b"/\0", flags=128)),
        "two filters": sized(body + record(Kind.SECCOMP, b"\0" * 8)),
        "half an instruction": sized(body + record(Kind.SECCOMP, b"\0" * 9)),
        "two host names": sized(body + record(Kind.HOSTNAME, b"x\0")),
        "two directories": sized(body + record(Kind.CWD, b"/\0")),
        "group 0": sized(body + record(Kind.GROUP, number=0)),
        "an unknown limit": sized(body + record(Kind.RLIMIT, flags=99)),
        "too many arguments": sized(body + record(Kind.ARG, b"x\0") * 1100),
        "sizes that overflow": sized(body + struct.pack("<IIQII", 1, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)),
        "no program": sized(record(Kind.CWD, b"/\0")),
    }


def test_whatever_is_not_a_plan_is_refused(launcher_path: Path, plan_bytes: bytes) -> None:
    for what, data in mutations(plan_bytes).items():
        reports = launch(launcher_path, data)
        assert [r.rsplit(" ", 1)[0] for r in reports] == ["refused plan"], what


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 100_000), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4
    )
)
def test_a_damaged_plan_never_crashes_the_launcher(
    launcher_path: Path, plan_bytes: bytes, edits: list[tuple[int, bytes]]
) -> None:
    """Whatever happens is told in the launcher's own words."""
    data = bytearray(plan_bytes)
    for at, new in edits:
        at %= len(data)
        data[at : at + len(new)] = new
    data[20:24] = struct.pack("<I", 2000)  # its deadline stays short
    reports = [decode_report(line) for line in launch(launcher_path, bytes(data))]
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


def test_the_launcher_wants_its_descriptors(launcher_path: Path) -> None:
    for arguments in ([], ["1", "2", "3"], ["77", "78", "79"], ["x", "y", "z"]):
        assert subprocess.run([launcher_path, *arguments], capture_output=True, check=False).returncode == 2
