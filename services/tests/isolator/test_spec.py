"""The parser of specifications: what it takes, what it refuses, and that nothing else comes out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawos.isolator.errors import SpecInvalid
from clawos.isolator.spec import Spec, is_clean, parse

GOOD: dict[str, Any] = {"tool": "memory.usage", "argv": ["/usr/bin/true"]}


def test_only_tool_and_argv_are_needed() -> None:
    spec = parse(json.dumps(GOOD))
    assert (spec.home, spec.run_as, spec.quota, spec.seccomp) == ("none", "clawos-sandbox", "small", "shell")
    assert spec.runtime == "native"
    assert (spec.stdin, spec.host_proc, spec.read, spec.env) == (False, False, (), {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"privileged": True}, "unknown field `privileged`"),
        ({"argv": []}, "length >= 1"),
        ({"argv": ["true"]}, "absolute path"),
        ({"argv": ["/usr/../bin/true"]}, "absolute path"),
        ({"argv": ["/usr/bin/true", "a\0b"]}, "NUL"),
        ({"argv": ["/usr/bin/true", "\ud800"]}, "spec"),
        ({"argv": ["/bin/true"] * 300}, "length <= 256"),
        ({"env": {"A=B": "x"}}, "not a variable's name"),
        ({"env": {"A": "x\0"}}, "NUL"),
        ({"tool": "../x"}, "tool"),
        ({"tool": "x\n"}, "tool"),
        ({"home": "all"}, "home"),
        ({"home": "read"}, "home needs home_owner"),
        ({"home": "read", "home_owner": -1}, "home_owner"),
        ({"home_owner": 2**32 - 1}, "home_owner"),
        ({"read": ["etc"]}, "read"),
        ({"read": ["/etc/../root"]}, "clean absolute path"),
        ({"read": ["//etc"]}, "clean absolute path"),
        ({"read": ["/etc/"]}, "clean absolute path"),
        ({"sockets": ["/run/./x"]}, "clean absolute path"),
        ({"cwd": "/a/../b"}, "clean absolute path"),
        ({"groups": ["a b"]}, "groups"),
        ({"run_as": "root\n"}, "run_as"),
        ({"wall_s": 0}, "wall_s"),
        ({"wall_s": "1"}, "wall_s"),
        ({"stdin": 1}, "stdin"),
        ({"runtime": "java"}, "runtime"),
    ],
)
def test_refusals_name_the_fault(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecInvalid, match=words):
        parse(json.dumps({**GOOD, **change}))


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"tool": "x"', "\x00", "x" * 2_000_000])
def test_what_is_no_specification_is_refused(text: str) -> None:
    with pytest.raises(SpecInvalid):
        parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from([*Spec.__struct_fields__, "mounts", ""])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(fields, json_values | st.lists(st.text()) | st.text(), max_size=8))
def test_whatever_comes_in_a_spec_or_a_refusal_comes_out(fuzz: dict[str, Any]) -> None:
    try:
        spec = parse(json.dumps({**GOOD, **fuzz}))
    except SpecInvalid:
        return
    assert is_clean(spec.argv[0])
    assert all(is_clean(path) for path in (*spec.read, *spec.sockets))
    assert not any("\0" in text for text in (*spec.argv, *spec.env.values()))


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with pytest.raises(SpecInvalid):
        parse(text)


@given(st.text(alphabet="/.a\0", max_size=12))
def test_a_clean_path_has_one_spelling(path: str) -> None:
    if is_clean(path):
        assert path == "/" or all(part not in ("", ".", "..") for part in path[1:].split("/"))
