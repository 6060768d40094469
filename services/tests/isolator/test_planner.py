"""From specification to plan: what is granted, what is refused, and the order of operations."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from clawos.core.errors import BadRequest
from clawos.core.parse import from_value
from clawos.isolator.config import Config
from clawos.isolator.errors import SpecInvalid
from clawos.isolator.plan import (
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
    in_order,
)
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse

from .conftest import spec_text


def plan(planner: Planner, **spec: Any) -> Plan:
    return planner.plan(parse(spec_text("/usr/bin/true", **spec)))


def binds(made: Plan) -> dict[str, Bind]:
    return {o.path: o for o in made.operations if isinstance(o, Bind)}


def test_nothing_of_the_host_is_writable_by_default(planner: Planner) -> None:
    writable = [p for p, b in binds(plan(planner)).items() if b.flags & Mount.WRITE]
    assert all(path.startswith("/dev/") for path in writable)


def test_operations_find_their_parents_made(planner: Planner) -> None:
    made = {"/"}
    for operation in plan(planner, read=["/etc"], sockets=["/run/dbus/system_bus_socket"]).operations:
        if isinstance(operation, Allow):
            continue
        assert str(PurePosixPath(operation.path).parent) in made, operation
        if isinstance(operation, Bind | Tmpfs | Proc):
            assert operation.path in made, "a mount needs its mount point"
        else:
            assert operation.path not in made
        made.add(operation.path)


def test_what_lies_below_a_bind_falls_away() -> None:
    wanted: dict[str, Operation] = {
        "/etc": Bind("/etc", "/etc"),
        "/etc/passwd": File("/etc/passwd", b""),
        "/a/b/link": Link("/a/b/link", "x"),
    }
    assert list(in_order(wanted)) == [
        Dir("/a"),
        Dir("/a/b"),
        Link("/a/b/link", "x"),
        Dir("/etc"),
        Bind("/etc", "/etc"),
    ]


def test_home_lies_where_paths_md_says(planner: Planner, config: Config) -> None:
    made = plan(planner, home="write", home_owner=0)
    home = binds(made)["/home/root"]
    assert (home.source, home.flags) == (str(config.home / "0"), Mount.WRITE)
    assert (made.cwd, made.env["HOME"]) == ("/home/root", "/home/root")
    assert Allow("/home/root", Access.READ | Access.WRITE) in made.operations
    assert binds(plan(planner, home="read", home_owner=0))["/home/root"].flags == Mount.READ


def test_landlock_says_what_the_mounts_say(planner: Planner) -> None:
    made = plan(planner, read=["/etc"], home="read", home_owner=0)
    rules = {o.path: o.access for o in made.operations if isinstance(o, Allow)}
    assert rules["/"] == Access.LIST
    assert (rules["/usr"], rules["/etc"], rules["/home/root"]) == (
        Access.READ | Access.EXEC,
        Access.READ,
        Access.READ,
    )
    assert not any(a & Access.WRITE for p, a in rules.items() if not p.startswith(("/dev/", "/tmp")))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"quota": "huge"}, "no quota is called 'huge'"),
        ({"seccomp": "none"}, "no seccomp profile is called 'none'"),
        ({"run_as": "root"}, "may not run as 'root'"),
        ({"run_as": "clawos-agent"}, "may not run as"),
        ({"run_as": "clawos-units"}, "may not run as 'clawos-units'"),
        ({"read": ["/"]}, "read: /"),
        ({"read": ["/root"]}, "read: /root"),
        ({"read": ["/var"]}, "read: /var"),
        ({"read": ["/var/lib/clawos/vault"]}, "read: /var/lib/clawos/vault"),
        ({"read": ["/proc"]}, "read: /proc"),
        ({"read": ["/etcetera"]}, "read: /etcetera"),
        ({"sockets": ["/run/docker.sock"]}, "sockets: /run/docker.sock"),
        ({"groups": ["root"]}, "the group 'root'"),
        ({"home": "read", "home_owner": 3_999_999}, "no user has the id 3999999"),
    ],
)
def test_refusals(planner: Planner, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecInvalid, match=words):
        plan(planner, **spec)


def test_the_way_out_is_all_that_a_proxy_adds(planner: Planner) -> None:
    spec = parse(spec_text("/usr/bin/true", network="egress", seccomp="python", env={"http_proxy": "mine"}))
    proxy = Proxy("198.19.255.1", 8118)
    without, made = planner.plan(spec), planner.plan(spec, proxy)
    assert made.env["HTTPS_PROXY"] == made.env["all_proxy"] == "http://198.19.255.1:8118"
    assert made.env["http_proxy"] == "mine", "what the caller names comes last; it opens nothing"
    assert (without.seccomp_name, made.seccomp_name) == ("python", "python-egress")
    assert made.operations == without.operations
    assert made.describe()["network"] == "198.19.255.1:8118"
    assert ["tcp 8118", "connect"] in made.describe()["filters"]["landlock"]
    assert not [name for name in without.env if "proxy" in name and name not in spec.env]
    assert without.describe()["network"] == "none"


def test_what_has_no_sockets_has_no_way_out(planner: Planner) -> None:
    spec = parse(spec_text("/usr/bin/true", network="egress", seccomp="wasm"))
    with pytest.raises(SpecInvalid, match="'wasm' knows no way out"):
        planner.plan(spec, Proxy("198.19.255.1", 8118))


def test_nothing_is_shown_in_what_is_fresh_for_each_call(config: Config, planner: Planner) -> None:
    config = Config(**{f: getattr(config, f) for f in config.__struct_fields__} | {"read": ("/tmp",)})
    with pytest.raises(SpecInvalid, match="the call's own"):
        plan(Planner(config, planner._quotas, planner._filters), read=["/tmp"])


def test_only_calls_that_nobody_knows_by_their_user_get_another(planner: Planner) -> None:
    assert plan(planner).has_own_uid
    assert plan(planner, read=["/etc"], host_proc=True, groups=["systemd-journal"]).has_own_uid
    assert not plan(planner, home="read", home_owner=0).has_own_uid
    assert not plan(planner, sockets=["/run/dbus/system_bus_socket"]).has_own_uid
    special = spec_text("/usr/lib/clawos/tools/units", "list", run_as="clawos-units")
    assert not planner.plan(parse(special)).has_own_uid


SPECIAL_USERS = [("clawos-units", "units"), ("clawos-power", "power"), ("clawos-settings", "settings")]


@pytest.mark.parametrize(("user", "program"), SPECIAL_USERS)
def test_special_tools_run_as_their_own_user_and_without_a_home(
    planner: Planner, user: str, program: str
) -> None:
    command = (f"/usr/lib/clawos/tools/{program}", "x", "y")
    made = planner.plan(parse(spec_text(*command, run_as=user, home_owner=0)))
    assert made.uid == pwd.getpwnam(user).pw_uid
    assert made.home is None
    with pytest.raises(SpecInvalid, match="sees no home"):
        planner.plan(parse(spec_text(*command, run_as=user, home="read", home_owner=0)))


@pytest.mark.parametrize(("user", "own"), SPECIAL_USERS)
def test_no_special_tool_runs_as_the_user_of_another(planner: Planner, user: str, own: str) -> None:
    for _, program in SPECIAL_USERS:
        text = spec_text(f"/usr/lib/clawos/tools/{program}", "x", run_as=user)
        if program == own:
            assert planner.plan(parse(text)).run_as == user
        else:
            with pytest.raises(SpecInvalid, match=f"may not run as '{user}'"):
                planner.plan(parse(text))


@pytest.mark.parametrize(
    "command",
    [
        ("/usr/bin/sh", "-c", "systemctl stop clawos-agent"),
        ("/usr/bin/systemctl", "stop", "clawos-agent"),
        ("/usr/lib/clawos/tools/memory",),
        ("/usr/lib/clawos/tools/units2",),
        ("/bin/sh", "/usr/lib/clawos/tools/units"),
    ],
)
def test_a_tools_name_lends_its_user_to_no_other_program(planner: Planner, command: tuple[str, ...]) -> None:
    text = spec_text(*command, run_as="clawos-units").replace("test.tool", "unit.start")
    with pytest.raises(SpecInvalid, match=f"{command[0]} may not run as 'clawos-units'"):
        planner.plan(parse(text))


def test_the_environment_makes_no_other_program_of_it(planner: Planner) -> None:
    text = spec_text("/usr/lib/clawos/tools/units", "list", run_as="clawos-units", env={"PATH": "/tmp"})
    with pytest.raises(SpecInvalid, match="no environment of the caller's"):
        planner.plan(parse(text))


@pytest.mark.parametrize("program", ["units", "/usr/*", "**", ""])
def test_run_as_names_programs_and_no_patterns(program: str) -> None:
    with pytest.raises(BadRequest, match="run_as"):
        from_value({"run_as": {"clawos-units": [program]}}, Config, "isolator.toml")


@pytest.fixture
def shared() -> Iterator[Path]:
    """Not below /tmp, of which every sandbox has its own."""
    with TemporaryDirectory(dir="/srv") as directory:
        yield Path(directory)


def test_a_link_out_of_the_allowed_directories_is_refused(
    config: Config, planner: Planner, shared: Path
) -> None:
    (shared / "shown").mkdir()
    (shared / "shown" / "out").symlink_to("/root")
    (shared / "shown" / "in").symlink_to("out2")
    (shared / "shown" / "out2").mkdir()
    config = Config(
        **{f: getattr(config, f) for f in config.__struct_fields__} | {"read": (f"{shared}/shown",)}
    )
    planner = Planner(config, planner._quotas, planner._filters)
    assert f"{shared}/shown/in" in binds(plan(planner, read=[f"{shared}/shown/in"]))
    with pytest.raises(SpecInvalid):
        plan(planner, read=[f"{shared}/shown/out"])


def test_what_the_machine_has_not_the_sandbox_has_not(planner: Planner) -> None:
    assert "/etc/no-such-file" not in binds(plan(planner, read=["/etc/no-such-file"]))


def test_wall_clock_can_only_be_shortened(planner: Planner) -> None:
    assert plan(planner, wall_s=1.5).wall_s == 1.5
    assert plan(planner, wall_s=80_000).wall_s == 60


def test_the_callers_environment_wins(planner: Planner) -> None:
    assert plan(planner, env={"TERM": "linux"}).env["TERM"] == "linux"


def test_a_plan_can_be_read(planner: Planner) -> None:
    told = plan(planner, home="write", home_owner=0).describe()
    assert {"path": "/usr", "source": "/usr", "access": "read exec"} in told["mounts"]
    assert told["limits"]["memory_bytes"] == 100_663_296
    assert told["filters"]["seccomp"] == "shell"
    assert "seccomp_filter" not in str(told)
