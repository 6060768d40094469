"""What conditions, counts, steps and first sights mean."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from monitor.events import CALL, Rig, connect, happened, read, write, x

from clawos.monitor.detect.files import load
from clawos.monitor.detect.matchers import KEYS_MAX
from clawos.monitor.detect.ruleset import RuleSet
from clawos.monitor.event import Event


def rules(tmp_path: Path, body: str, kinds: str = '["exec"]') -> RuleSet:
    (tmp_path / "r.toml").write_text(
        f"""[[rule]]
id = "it"
title = "It"
severity = "low"
attack = []
message = "{{who}}"
react = ["log"]
{f"kinds = {kinds}" if kinds else ""}
{body}
"""
    )
    return load([tmp_path])


@pytest.mark.parametrize(
    ("body", "event", "holds"),
    [
        ("match.program = 'nc'", x("nc"), True),
        ("match.program = 'nc'", x("ncat"), False),
        ("match.program = ['nc', 'ncat']", x("ncat"), True),
        ("match.program = { not = ['nc', 'ncat'] }", x("ncat"), False),
        ("match.program = { not = { prefix = 'n' } }", x("cat"), True),
        ("match.path = { prefix = '/opt/' }", x("/opt/a"), True),
        ("match.path = { suffix = ['.sh', '.py'] }", x("/opt/a.py"), True),
        ("match.path = { contains = 'opt' }", x("/usr/bin/a"), False),
        ("match.path = { glob = '/opt/*/a' }", x("/opt/b/a"), True),
        ("match.path = { glob = '/opt/*/a' }", x("/opt/b/c/a"), False),
        ("match.path = { glob = '/opt/**/a' }", x("/opt/b/c/a"), True),
        ("match.path = { glob = '/opt/?' }", x("/opt/ab"), False),
        ("match.path = { regex = '^/o[op]t/' }", x("/opt/ab"), True),
        ("match.path = { prefix = '/opt/', suffix = '.py' }", x("/opt/ab"), False),
        ("match.uid = 1000", x("id"), True),
        ("match.uid = { min = 1, max = 999 }", x("id"), False),
        ("match.links = { bits = 3 }", x("id", links=4), False),
        ("match.args = 'x'", x("id a x b"), True),
        ("match.args = { prefix = '--' }", x("id a x b"), False),
        ("match.args = { not = 'x' }", x("id a x b"), False),
        ("match.ancestors = '/usr/bin/login'", x("id"), True),
        ("match.ancestor_names = ['nginx']", x("id"), False),
        ("match.parent_name = 'bash'", x("id"), True),
        ("match.args_truncated = true", x("id"), False),
        ("match.inside = true", x("id", call=CALL), True),
        ("scope = 'sandbox'", x("id"), False),
        ("scope = 'host'", x("id"), True),
        ("any = [{ program = 'nc' }, { uid = 1000 }]", x("id"), True),
        ("any = [{ program = 'nc' }, { uid = 1 }]", x("id"), False),
        ("unless = [{ program = 'id', uid = 1000 }]", x("id"), False),
        ("unless = [{ program = 'id', uid = 1 }]", x("id"), True),
    ],
)
def test_condition(tmp_path: Path, body: str, event: Event, holds: bool) -> None:
    assert bool(Rig(rules(tmp_path, body)).feed(event)) is holds


def test_addresses(tmp_path: Path) -> None:
    rig = Rig(rules(tmp_path, "match.address = { cidr = ['10.0.0.0/8', 'fd00::/8'] }", '["connect"]'))
    for address, holds in (
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("fd00::1", True),
        ("::ffff:10.1.1.1", True),
        ("", False),
    ):
        assert bool(rig.feed(connect(address, 1))) is holds, address


def test_a_field_that_an_event_lacks_holds_for_nothing(tmp_path: Path) -> None:
    rig = Rig(rules(tmp_path, "match.path = { not = '/x' }", '["connect"]'))
    assert not rig.feed(connect("10.0.0.1", 1))
    assert rig.feed(connect("", 0, path="/y"))


def exec_at(second: float, **more: Any) -> Event:
    return x("id", time_ns=int(second * 1e9), **more)


def test_count_within_a_window_that_slides(tmp_path: Path) -> None:
    body = "count = 4\nwithin_s = 10\nby = ['process']"
    assert Rig(rules(tmp_path, body)).feed(*(exec_at(100 + n) for n in range(4)))
    assert not Rig(rules(tmp_path, body)).feed(*(exec_at(100 + 5 * n) for n in range(20)))
    # Over the border of the fixed windows: two at the end of one, two at the beginning of the next.
    assert Rig(rules(tmp_path, body)).feed(*(exec_at(t) for t in (100, 109.8, 109.9, 110.0, 110.1)))
    assert not Rig(rules(tmp_path, body)).feed(*(exec_at(100 + n, tgid=n) for n in range(4)))


def test_a_count_begins_anew_after_it_was_reached(tmp_path: Path) -> None:
    rig = Rig(rules(tmp_path, "count = 4\nwithin_s = 10\nby = ['process']"))
    rig.feed(*(exec_at(100 + n / 10) for n in range(7)))
    assert len(rig.hits) == 1
    rig.feed(exec_at(101))
    assert len(rig.hits) == 1


def test_distinct_values(tmp_path: Path) -> None:
    body = "count = 3\ndistinct = 'program'\nwithin_s = 10\nby = ['cgroup']"
    assert not Rig(rules(tmp_path, body)).feed(*(exec_at(n) for n in range(9)))
    names = [x(name, time_ns=n * 10**9) for n, name in enumerate(["a", "b", "a", "c"])]
    assert Rig(rules(tmp_path, body)).feed(*names)
    slow = [x(name, time_ns=n * 6 * 10**9) for n, name in enumerate(["a", "b", "c", "d"])]
    assert not Rig(rules(tmp_path, body)).feed(*slow)


STEPS = """within_s = 10
by = ["process"]
[[rule.steps]]
kinds = ["open"]
match.write = true
[[rule.steps]]
kinds = ["connect"]
[[rule.steps]]
kinds = ["exec"]
match.program = "sh"
"""


def test_steps_in_their_order(tmp_path: Path) -> None:
    set_ = rules(tmp_path, STEPS, "")
    a, b, c = write("/x", time_ns=10**9), connect("1.1.1.1", 1, time_ns=2 * 10**9), x("sh", time_ns=3 * 10**9)
    rig = Rig(set_)
    assert rig.feed(a, b, c)
    assert [event.kind for event in rig.hits[0][1]] == ["open", "connect", "exec"]
    assert not Rig(rules(tmp_path, STEPS, "")).feed(b, a, c)
    assert not Rig(rules(tmp_path, STEPS, "")).feed(a, c)
    assert not Rig(rules(tmp_path, STEPS, "")).feed(read("/x", time_ns=10**9), b, c)
    late = x("sh", time_ns=12 * 10**9)
    assert not Rig(rules(tmp_path, STEPS, "")).feed(a, b, late)
    again = write("/x", time_ns=int(1.5e9))
    assert Rig(rules(tmp_path, STEPS, "")).feed(a, again, b, c)


def test_first_sight_is_remembered(tmp_path: Path) -> None:
    set_ = rules(tmp_path, "first = ['tool', 'program']")
    rig = Rig(set_)
    assert rig.feed(x("id"))
    assert not rig.feed(x("id"))
    assert rig.feed(x("nc"))
    after = rules(tmp_path, "first = ['tool', 'program']")
    after.remember(set_.first_seen())
    assert not Rig(after).feed(x("id"))


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("count = 5\nwithin_s = 100\nby = ['process']", '["exec"]'),
        ("count = 5\ndistinct = 'path'\nwithin_s = 100\nby = ['process']", '["exec"]'),
        (STEPS, ""),
        ("first = ['process']", '["exec"]'),
    ],
)
def test_what_a_rule_keeps_in_mind_is_bounded(tmp_path: Path, body: str, kinds: str) -> None:
    set_ = rules(tmp_path, body, kinds)
    rig = Rig(set_)
    for n in range(3 * KEYS_MAX):
        rig.feed(x("id", tgid=n), write("/x", tgid=n))
    matcher = set_.rules[0].matcher
    held = [value for value in vars(matcher).values() if hasattr(value, "popitem")]
    assert held
    assert all(len(one) <= 4 * KEYS_MAX for one in held)


def test_no_text_makes_a_pattern_take_long() -> None:
    """The worst that the shipped patterns do with a hostile command line."""
    rig = Rig()
    for text in ("a" * 100_000, "base64 -d" * 5000, "> " * 20_000, "cat /" + "x/" * 20_000, " -p" * 20_000):
        began = time.process_time()
        rig.feed(happened("exec", path="/usr/bin/sh", args=["sh", "-c", text], args_truncated=True, links=1))
        assert time.process_time() - began < 0.5, text[:20]


def test_a_sentence_stays_on_its_line() -> None:
    rig = Rig()
    rig.feed(x("rm '/root/.bash_history' 'a\nb\x1b[31m'"))
    assert rig.messages
    assert all(message.isprintable() for message in rig.messages)
