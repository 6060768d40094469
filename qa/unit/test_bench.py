"""The benchmark's own tables and command lines: what is compared is what the page says."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.plan import Bind, Link, Plan, Tmpfs
from clawos.isolator.planner import Planner
from clawos.isolator.seccomp import profile
from clawos.isolator.spec import parse
from qa.bench import report
from qa.bench.peers import arms, bubblewrap, oci, protections, rounds
from qa.bench.peers.place import Place

POLICIES = Path("policies")
OUTSIDE = """namespace user user:[1]
namespace net net:[2]
uid_map          0          0 4294967295
status CapEff:\t000001ffffffffff
status CapBnd:\t000001ffffffffff
status NoNewPrivs:\t0
status Seccomp:\t0
reopen ok
"""
INSIDE = """namespace user user:[3]
namespace net net:[2]
uid_map        986        986          1
status CapEff:\t0000000000000000
status CapBnd:\t0000000000000000
status NoNewPrivs:\t1
status Seccomp:\t2
reopen EACCES
"""


@pytest.fixture
def plan() -> Plan:
    made = Planner(Config(), quotas.load(POLICIES / "quotas.toml"), {"shell": bytes(8)})
    return made.plan(parse('{"tool": "time.now", "argv": ["/usr/bin/date"]}'))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    cgroup = Path("/sys/fs/cgroup/bench")
    limits = {"pids.max": "32"}
    return Place(
        tmp_path, tmp_path, tmp_path / "peers", Path("/bin/launch"), POLICIES, cgroup, limits, systemd=True
    )


def _row(text: str) -> dict[str, object]:
    outside = protections.Seen.parse(OUTSIDE)
    return protections.row("x", protections.Seen.parse(text), outside, memory_limit=False, time_limit=False)


def test_protections_are_what_was_found() -> None:
    assert _row(INSIDE) == {
        "arm": "x",
        "namespaces": "user",
        "uid map": "1 id",
        "memory limit": "no",
        "Landlock": "yes",
        "seccomp": "yes",
        "capabilities": "none",
        "bounding set": "empty",
        "no_new_privs": "yes",
        "time limit": "no",
    }


def test_nothing_is_found_where_nothing_is() -> None:
    row = _row(OUTSIDE)
    words = {str(word) for name, word in row.items() if name != "arm"}
    assert words == {"none", "no", "some", "not empty"}


def test_an_arm_that_tells_nothing_has_no_protection() -> None:
    row = _row("")
    assert {row[name] for name in ("Landlock", "seccomp", "no_new_privs")} == {"no"}
    assert row["namespaces"] == "none"


def test_every_peer_sees_the_plans_tree(plan: Plan, place: Place) -> None:
    etc = bubblewrap.write_etc(plan, place.scratch / "etc")
    words = bubblewrap.command(Path("bwrap"), plan, etc)
    bundle = oci.write_bundle(place, plan, etc, place.scratch / "bundle")
    mounts = {m["destination"] for m in json.loads((bundle / "config.json").read_text())["mounts"]}
    for operation in plan.operations:
        inside = operation.path.removeprefix("/")
        if inside.startswith("etc/"):
            assert (etc / inside.removeprefix("etc/")).exists() or (
                etc / inside.removeprefix("etc/")
            ).is_symlink()
        elif isinstance(operation, Link) and not inside.startswith("dev/"):
            assert (bundle / "rootfs" / inside).is_symlink()
            assert operation.path in words
        elif isinstance(operation, Bind | Tmpfs) and not inside.startswith("dev/"):
            assert operation.path in words
            assert operation.path in mounts
    assert (etc / "passwd").read_text().startswith("clawos-sandbox:")


def test_the_runtimes_get_every_rule_of_the_profile(plan: Plan, place: Place) -> None:
    etc = bubblewrap.write_etc(plan, place.scratch / "etc")
    bundle = oci.write_bundle(place, plan, etc, place.scratch / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    written = {name for rule in config["linux"]["seccomp"]["syscalls"] for name in rule["names"]}
    rules = profile.load(POLICIES / "seccomp", "shell", platform.machine())
    assert written == {name for name, rule in rules.items() if rule.alternatives}
    assert written < set(rules), "some are denied"
    assert config["linux"]["resources"]["pids"] == {"limit": plan.quota.pids}


def test_every_arm_runs_the_plans_program(plan: Plan, place: Place) -> None:
    made = {arm.name: arm for arm in arms.all_of(place, plan, "label")}
    assert {arms.BARE, arms.OURS, arms.BWRAP, "crun", "runc", "systemd-run"} <= set(made)
    for name, arm in made.items():
        if name not in (arms.OURS, "crun", "runc"):  # theirs is in a file
            assert arm.words[-len(plan.argv) :] == plan.argv, name
    assert "@limit:pids.max=32" in made[arms.OURS].words


def test_ratios_are_of_the_baseline() -> None:
    times = {"a": rounds.Times([2.0, 4.0, 6.0], [1.0] * 3), "b": rounds.Times([1.0, 2.0, 9.0], [1.0] * 3)}
    first, second = rounds.rows(times, "b")
    assert (first["p50_ms"], first["p50/b"], first["min/b"]) == (4.0, 2.0, 2.0)
    assert (second["p50_ms"], second["p99_ms"], second["p50/b"]) == (2.0, 9.0, 1.0)


def test_the_page_has_a_table_for_every_list(tmp_path: Path) -> None:
    machine = {"cpu": "x", "cores": 2, "memory_gib": 1.0}
    result = {"machine": machine, "date": "d", "load_before": 0.1, "note": "How.", "n": 1}
    (tmp_path / "part.json").write_text(json.dumps({**result, "in": {"rows": [{"arm": "a", "ms": 1.23456}]}}))
    report.write(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "### in.rows\n\n| arm | ms |\n|---|---|\n| a | 1.235 |\n" in page
    assert "\nHow.\n" in page
    assert "| n | 1 |  |" in page
    assert "| note" not in page
