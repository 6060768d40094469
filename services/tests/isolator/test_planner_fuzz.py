"""The planner over a tree of traps: whatever is asked for, a whole plan comes out or a refusal by name.

A plan that comes out is what the launcher then reads: `plan.c` itself, built for this, is asked.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawos.core.parse import to_json
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.errors import SpecInvalid
from clawos.isolator.filters import load as load_filters
from clawos.isolator.plan import (
    OPERATIONS_MAX,
    Access,
    Allow,
    Bind,
    Dir,
    File,
    Link,
    Mount,
    Operation,
    Plan,
    Proc,
    Proxy,
    Tmpfs,
)
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse
from clawos.isolator.wire import Kind, encode, landlock

from .conftest import ISOLATOR, SERVICES

pytestmark = pytest.mark.processes

FORBIDDEN = ("/boot", "/dev", "/proc", "/root", "/run/clawos", "/sys", "/var/lib/clawos")
Data = dict[str, Any]


@dataclass(frozen=True)
class Traps:
    """A directory that may be read, and what there is to name in it."""

    planner: Planner
    shown: str
    paths: tuple[str, ...]


@pytest.fixture(scope="module")
def traps(filters_path: Path) -> Iterator[Traps]:
    """Not below /tmp, which every sandbox has its own of."""
    with tempfile.TemporaryDirectory(prefix="clawos-test-", dir="/srv") as directory:
        yield made_traps(Path(directory), filters_path)


def made_traps(top: Path, filters_path: Path) -> Traps:
    shown = top / "shown"
    hidden = top / "hidden"
    for directory in (shown / "a" / "b", shown / "A file\n\u2028é😀", hidden):
        directory.mkdir(parents=True)
    (shown / "file").write_text("x")
    (shown / "a" / "in").symlink_to("../file")
    (shown / "dir").symlink_to("a/b")
    (shown / "out").symlink_to(hidden)
    (shown / "shadow").symlink_to("/root")
    (shown / "up").symlink_to("../../../../../../..")
    (shown / "proc").symlink_to("/proc/self")
    (shown / "loop").symlink_to("loop")
    (shown / "dangling").symlink_to("nowhere")
    (shown / "sibling").symlink_to(f"{shown}-other")
    os.mkfifo(shown / "fifo")
    deep = shown
    for depth in range(40):
        deep = deep / f"d{depth}"
    deep.mkdir(parents=True)
    found = sorted(str(p) for p in shown.rglob("*"))
    config = Config(read=(str(shown), "/etc", "/lib", "/usr"), home=top / "home")
    planner = Planner(
        config, quotas.load(SERVICES.parent / "policies/quotas.toml"), load_filters(filters_path)
    )
    extra = (
        "/etc",
        "/etc/hostname",
        "/etc/mtab",
        "/etc/mtab/x",
        "/etc/localtime",
        "/lib/systemd",
        "/lib",
        "/usr",
    )
    return Traps(planner, str(shown), (str(shown), *found, *extra, "/etc/passwd/x", f"{shown}-other", "/"))


def specs(traps: Traps) -> st.SearchStrategy[Data]:
    tails = st.sampled_from(["", "/x", "/in", "/b", "/..", "/.", "/é" * 40, "/" + "n" * 255])
    good = [p for p in traps.paths if below(os.path.realpath(p), traps.shown)]
    some = st.lists(st.sampled_from(good), max_size=32)
    reads = some | st.lists(st.builds(str.__add__, st.sampled_from(traps.paths), tails), max_size=4)
    texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
    return st.fixed_dictionaries(
        {"tool": st.just("test.tool"), "argv": st.lists(texts, max_size=20).map(lambda a: ["/bin/true", *a])},
        optional={
            "env": st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}\Z"), texts, max_size=20),
            "stdin": st.booleans(),
            "cwd": st.sampled_from([*traps.paths, "/nowhere", "/tmp"]),
            "home": st.sampled_from(["none", "read", "write"]),
            "home_owner": st.sampled_from([0, 0, 1, 1, 2**32 - 2]),
            "read": reads,
            "sockets": st.lists(
                st.sampled_from(["/run/dbus/system_bus_socket"] * 5 + ["/run/x"]), max_size=3
            ),
            "groups": st.lists(st.sampled_from(["systemd-journal"] * 5 + ["root"]), max_size=3),
            "host_proc": st.booleans(),
            "run_as": st.sampled_from(["clawos-sandbox"] * 9 + ["clawos-units"]),
            "quota": st.sampled_from(["small", "medium", "large"] * 3 + ["huge"]),
            "seccomp": st.sampled_from(["shell", "python"] * 4 + ["none"]),
            "wall_s": st.floats(1e-9, 86400),
        },
    )


def below(path: str, root: str) -> bool:
    return PurePosixPath(path).is_relative_to(root)


def check(traps: Traps, plan: Plan, asked: Data) -> None:
    """What holds for every plan, whatever was asked for."""
    made: dict[str, Operation] = {"/": Dir("/")}
    for operation in plan.operations:
        if isinstance(operation, Allow):
            continue
        parent = made[str(PurePosixPath(operation.path).parent)]
        assert isinstance(parent, Dir | Tmpfs), f"{operation} would be made below {parent}"
        if isinstance(operation, Bind | Tmpfs | Proc):
            assert isinstance(made[operation.path], Dir | File), "a mount point is no link"
        else:
            assert operation.path not in made
        made[operation.path] = operation
        if isinstance(operation, Bind) and operation.path in asked.get("read", ()):
            assert operation.flags == Mount.READ
            assert operation.source == os.path.realpath(operation.path)
            allowed = (traps.shown, "/etc", "/usr", "/lib")
            assert any(below(operation.source, root) for root in allowed), "it leads out"
            assert not any(below(operation.source, f) or below(f, operation.source) for f in FORBIDDEN)
    writable = [o.path for o in plan.operations if isinstance(o, Bind) and o.flags & Mount.WRITE]
    assert all(below(p, "/dev") or (below(p, "/home") and asked.get("home") == "write") for p in writable)
    assert 0 < plan.wall_s <= plan.quota.wall_s
    assert plan.uid
    assert plan.gid
    assert len(plan.operations) <= OPERATIONS_MAX


def hexadecimal(value: str | bytes) -> str:
    return (value.encode() if isinstance(value, str) else value).hex()


def told(plan: Plan) -> Iterator[str]:
    """The plan in the words of qa/fuzz/print_plan.c."""
    wall_ms = max(1, int(plan.wall_s * 1000))
    yield f"header {plan.uid} {plan.uid} {plan.gid} {wall_ms} {plan.landlock_min_abi} {plan.root_bytes}"
    yield from (f"arg {hexadecimal(a)}" for a in plan.argv)
    yield from (f"env {hexadecimal(f'{name}={value}')}" for name, value in plan.env.items())
    yield from (f"group {gid}" for gid in plan.groups.values())
    yield from (f"limit {resource} {limit}" for resource, limit in plan.rlimits.items())
    yield f"filter {hexadecimal(plan.seccomp_filter)}"
    yield f"hostname {hexadecimal(plan.hostname)}"
    yield f"cwd {hexadecimal(plan.cwd)}"
    yield f"connect {plan.proxy.port if plan.proxy else 0}"
    for o in plan.operations:
        match o:
            case Dir(_, mode):
                numbers, text, data = (Kind.DIR, mode, 0), "", b""
            case File(_, content, mode):
                numbers, text, data = (Kind.FILE, mode, 0), "", content
            case Link(_, target):
                numbers, text, data = (Kind.LINK, 0, 0), target, b""
            case Bind(_, source, flags, _):
                numbers, text, data = (Kind.BIND, int(flags), 0), source, b""
            case Tmpfs(_, size_bytes, flags):
                numbers, text, data = (Kind.TMPFS, int(flags), size_bytes), "", b""
            case Proc():
                numbers, text, data = (Kind.PROC, 0, 0), "", b""
            case Allow(_, access):
                numbers, text, data = (Kind.ALLOW, landlock(access), 0), "", b""
        kind, flags_or_mode, number = numbers
        texts = " ".join(hexadecimal(t) for t in (o.path, text, data))
        yield f"operation {int(kind)} {flags_or_mode} {number} {texts}"


@pytest.fixture(scope="module")
def print_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher's parser under the sanitizers, as a program that prints what it read."""
    folder = tmp_path_factory.mktemp("print-plan")
    fuzz = SERVICES.parent / "qa" / "fuzz"
    subprocess.run(["make", "-s", "-C", fuzz, f"OUT={folder}", folder / "print-plan"], check=True)
    return folder / "print-plan"


def read_back(program: Path, data: bytes) -> list[str] | None:
    """What the launcher reads in these bytes; None when it refuses them."""
    ran = subprocess.run([program], input=data, capture_output=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr.decode()
    return ran.stdout.decode().splitlines() if ran.returncode == 0 else None


@settings(
    max_examples=150,
    deadline=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_whole_plan_that_the_launcher_takes_or_a_refusal(
    traps: Traps, print_plan: Path, data: st.DataObject
) -> None:
    asked = data.draw(specs(traps))
    try:
        plan = traps.planner.plan(parse(to_json(asked)))
    except SpecInvalid:
        return
    hypothesis.event("a plan")
    ports = st.integers(1, 65535)
    plan = replace(plan, proxy=data.draw(st.none() | st.builds(Proxy, st.just("198.19.255.1"), ports)))
    check(traps, plan, asked)
    json.dumps(plan.describe())
    assert read_back(print_plan, encode(plan)) == list(told(plan))


def plan_reading(traps: Traps, *paths: str, **spec: Any) -> Plan:
    asked = {"tool": "test.tool", "argv": ["/bin/true"], "read": paths, **spec}
    return traps.planner.plan(parse(to_json(asked)))


@pytest.mark.parametrize("name", ["out", "shadow", "up", "proc", "sibling", "out/x", "up/root", "proc/root"])
def test_a_link_that_leads_out_is_refused(traps: Traps, name: str) -> None:
    with pytest.raises(SpecInvalid, match="not among read"):
        plan_reading(traps, f"{traps.shown}/{name}")


@pytest.mark.parametrize(("name", "source"), [("dir", "a/b"), ("a/in", "file"), ("a", "a"), ("fifo", "fifo")])
def test_a_link_that_stays_inside_is_followed_before_the_sandbox(
    traps: Traps, name: str, source: str
) -> None:
    """The control of the one above."""
    path = f"{traps.shown}/{name}"
    found = [o.source for o in plan_reading(traps, path).operations if isinstance(o, Bind) and o.path == path]
    assert found == [f"{traps.shown}/{source}"]


def test_a_mount_below_a_link_of_the_sandbox_is_refused(traps: Traps) -> None:
    if not Path("/lib").is_symlink():
        pytest.skip("/lib is a directory here")
    with pytest.raises(SpecInvalid, match="lies below /lib, which is no directory in the sandbox"):
        plan_reading(traps, "/lib/systemd")
    assert plan_reading(traps, "/usr/lib/systemd"), "the same by its own name"


def test_more_steps_than_the_launcher_takes_are_refused(traps: Traps) -> None:
    deep = Path(traps.shown)
    made = []
    for number in range(32):
        path = deep / f"wide{number}" / "/".join("x" * 20)
        path.mkdir(parents=True, exist_ok=True)
        made.append(str(path))
    with pytest.raises(SpecInvalid, match=f"steps, more than {OPERATIONS_MAX}"):
        plan_reading(traps, *made)
    assert len(plan_reading(traps, *made[:10]).operations) < OPERATIONS_MAX


def test_long_paths_cost_little_time(traps: Traps) -> None:
    started = time.process_time()
    plan_reading(traps, *(f"{traps.shown}{'/a' * 1900}{n}" for n in range(32)))
    assert time.process_time() - started < 2


def test_limits_are_those_of_the_launcher(traps: Traps, print_plan: Path) -> None:
    header = (ISOLATOR / "launcher" / "launch.h").read_text()
    assert f"#define OPERATIONS_MAX {OPERATIONS_MAX}\n" in header
    plan = plan_reading(traps)
    as_many = replace(plan, operations=tuple(Allow("/", Access.READ) for _ in range(OPERATIONS_MAX)))
    assert read_back(print_plan, encode(as_many)) == list(told(as_many))
    one_more = replace(plan, operations=(*as_many.operations, Allow("/", Access.READ)))
    assert read_back(print_plan, encode(one_more)) is None


def record(kind: int, a: bytes = b"", b: bytes = b"", flags: int = 0, number: int = 0) -> bytes:
    return struct.pack("<IIQII", kind, flags, number, len(a), len(b)) + a + b


@pytest.mark.parametrize(
    ("kind", "most"), [("ARG", 1024), ("ENV", 1024), ("GROUP", 16), ("RLIMIT", 16), ("DIR", 512)]
)
def test_each_count_has_its_limit(traps: Traps, print_plan: Path, kind: str, most: int) -> None:
    plan = replace(plan_reading(traps), argv=("/bin/true",), env={}, groups={}, operations=())
    bare = encode(plan)
    body = {"ARG": b"x\0", "ENV": b"x\0", "DIR": b"/x\0"}.get(kind, b"")
    have = {"ARG": 1, "RLIMIT": len(plan.rlimits)}.get(kind, 0)

    def with_records(count: int) -> bytes:
        data = bare + record(Kind[kind], body, number=7 if kind == "GROUP" else 0) * count
        return data[:8] + struct.pack("<I", len(data)) + data[12:]

    assert read_back(print_plan, with_records(most - have)) is not None
    assert read_back(print_plan, with_records(most - have + 1)) is None
