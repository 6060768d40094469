"""Which cgroups are followed: sandboxes' by their names, those of the settings, and what is below either."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from qa.monitor.conftest import push
from qa.vm.machine import Output

Run = Callable[..., Output]

ISOLATOR = "system.slice/clawos-isolator.service"
CALL = "00112233aabbccdd"
ALL = ["chmod", "create", "exit", "open"]
RARE = ["exit"]
SETTINGS = """
[[follow]]
cgroup = "/named"
kinds = ["chmod", "kill"]
[[follow]]
cgroup = "/there"
kinds = ["open"]
"""


def following(root: Run, *cgroups: str) -> dict[str, tuple[str, list[str]]]:
    push(root, "in_cgroup", "following")
    done = root(f"rm -f /tmp/following-*; python3 -I /run/qa/monitor/following.py {' '.join(cgroups)}")
    assert done.status == 0, done.stderr.decode()
    return {name: (call, kinds) for name, (call, kinds) in json.loads(done.text).items()}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        (f"call-{CALL}", CALL),
        (f"call-{CALL}-0", f"{CALL}-0"),
        (f"call-{CALL}-12", f"{CALL}-12"),
    ],
)
def test_a_sandbox_is_known_by_its_name(root: Run, name: str, call: str) -> None:
    inner = f"{ISOLATOR}/{name}/below"
    told = following(root, f"{ISOLATOR}/{name}", inner)
    assert told[f"{ISOLATOR}/{name}"] == (call, ALL)
    assert told[inner] == (call, ALL), "what is below is the call's, too"


def test_the_set_up_of_a_sandbox_is_not_recorded(root: Run) -> None:
    name = f"{ISOLATOR}/call-{CALL}"
    assert following(root, "--bare", name) == {name: (CALL, RARE)}


@pytest.mark.parametrize(
    "cgroup",
    [
        f"{ISOLATOR}/supervisor-of-test",
        f"{ISOLATOR}/call-{CALL[1:]}",
        f"{ISOLATOR}/call-{CALL}0",
        f"{ISOLATOR}/call-{CALL.upper()}",
        f"{ISOLATOR}/call-{CALL}-",
        f"{ISOLATOR}/call-{CALL}-1x",
        f"{ISOLATOR}/call-{CALL}-0123456789",
        f"call-{CALL}",
        f"system.slice/call-{CALL}",
    ],
)
def test_nothing_else_is(root: Run, cgroup: str) -> None:
    assert following(root, cgroup)[cgroup] == ("", RARE)


@pytest.fixture
def settings(root: Run) -> Iterator[str]:
    path = "/etc/clawos/monitor.toml"
    before = root(f"cat {path}").text
    yield path
    root(f"cat >{path} <<'END'\n{before}\nEND\npython3 -I -m clawos.monitor.load")


def test_what_the_settings_name(root: Run, settings: str) -> None:
    root("mkdir -p /sys/fs/cgroup/there/below")
    assert following(root, "named", "there") == {"named": ("", RARE), "there": ("", RARE)}
    done = root(f"cat >>{settings} <<'END'\n{SETTINGS}\nEND\npython3 -I -m clawos.monitor.load")
    assert done.status == 0, done.stderr.decode()
    told = following(root, "named", "named/below", "named-not", "there/below", "there")
    assert told == {
        "named": ("", ["chmod", "exit"]),
        "named/below": ("", ["chmod", "exit"]),
        "named-not": ("", RARE),
        "there/below": ("", ["exit", "open"]),
        "there": ("", ["exit", "open"]),
    }
    root("rmdir /sys/fs/cgroup/there/below /sys/fs/cgroup/there")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('[[follow]]\ncgroup = "named"\nkinds = ["open"]', "cgroup: named is no path"),
        ('[[follow]]\ncgroup = "/named"\nkinds = ["opened"]', "kinds: opened is none"),
    ],
)
def test_wrong_settings_are_refused_by_name(root: Run, settings: str, wrong: str, said: str) -> None:
    done = root(f"cat >>{settings} <<'END'\n{wrong}\nEND\npython3 -I -m clawos.monitor.load")
    assert done.status == 1
    assert said in done.stderr.decode()
