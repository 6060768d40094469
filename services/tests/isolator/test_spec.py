"""The parser of specifications: what it takes, what it refuses, and that nothing else comes out of it."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from clawos.isolator.errors import SpecInvalid
from clawos.isolator.spec import Spec, is_clean, parse, parse_group

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


MEBIBYTE = 1024 * 1024
HOSTILE = {
    "a million arguments": '{"tool": "x", "argv": [' + '"",' * 10**6 + '""]}',
    "as many as fit": '{"tool": "x", "argv": [' + '"",' * 340_000 + '""]}',
    "as many paths as fit": json.dumps({**GOOD, "read": ["/"] * 200_000}),
    "as many variables as fit": json.dumps({**GOOD, "env": {f"A{i}": "" for i in range(80_000)}}),
    "brackets": json.dumps(GOOD)[:-1] + ', "read": ' + "[" * 900_000,
    "brackets in a field nobody knows": json.dumps(GOOD)[:-1] + ', "x": ' + "[" * 900_000,
    "braces": json.dumps(GOOD)[:-1] + ', "env": ' + '{"a":' * 200_000,
    "a long number": json.dumps(GOOD)[:-1] + ', "wall_s": ' + "9" * 900_000 + "}",
    "a long whole number": json.dumps(GOOD)[:-1] + ', "home_owner": ' + "9" * 900_000 + "}",
    "a large exponent": json.dumps(GOOD)[:-1] + ', "wall_s": 1e99999}',
    "no number": json.dumps(GOOD)[:-1] + ', "wall_s": NaN}',
    "infinity": json.dumps(GOOD)[:-1] + ', "wall_s": Infinity}',
    "a long name of a field": json.dumps({**GOOD, "x" * 900_000: 1}),
    "a long name of a variable": json.dumps({**GOOD, "env": {"-" * 900_000: ""}}),
    "a long name of a tool": json.dumps({**GOOD, "tool": "x" * 900_000}),
    "a long path": json.dumps({**GOOD, "cwd": "/a" * 2048}),
    "a path too long in bytes": json.dumps({**GOOD, "cwd": "/é" * 2000}, ensure_ascii=False),
    "a long name in a path": json.dumps({**GOOD, "read": ["/etc/" + "a" * 256]}),
    "a name too long in bytes": json.dumps({**GOOD, "read": ["/etc/" + "é" * 128]}),
    "a long path of a program": json.dumps({**GOOD, "argv": ["/" + "a" * 100_000]}),
    "an argument that no kernel takes": json.dumps({**GOOD, "argv": ["/a", "a" * 128 * 1024]}),
    "one too long in bytes": json.dumps({**GOOD, "argv": ["/a", "é" * 64 * 1024]}, ensure_ascii=False),
    "a variable that no kernel takes": json.dumps({**GOOD, "env": {"A": "a" * (128 * 1024 - 2)}}),
    "large in bytes": json.dumps({**GOOD, "argv": ["/a", *["😀" * 30_000] * 10]}, ensure_ascii=False),
    "half a character": json.dumps({**GOOD, "argv": ["/bin/\ud800"]}),
    "the other half": json.dumps({**GOOD, "env": {"A": "\udfff"}}),
    "half a character as a field": json.dumps({**GOOD, "\ud800": 1}),
    "half a character as it is": '{"tool": "x", "argv": ["/bin/\ud800"]}',
    "a byte that is no text": '{"tool": "x", "argv": ["/bin/\udcff"]}',
    "a NUL in a path": json.dumps({**GOOD, "read": ["/etc/\0"]}),
    "a NUL as it is": '{"tool": "x", "argv": ["/bin/\0"]}',
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_specifications_are_refused_soon_and_in_few_words(what: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(SpecInvalid) as refused:
            parse(HOSTILE[what])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 2
    assert peak_bytes < 32 * MEBIBYTE
    assert len(refused.value.message.encode()) < 4096, "it goes over the bus and into the journal"


def test_what_just_fits_is_taken() -> None:
    """The control of the limits above."""
    long_path = "/" + "/".join(["a" * 255] * 15 + ["a" * 254])
    assert len(long_path) == 4095
    assert parse(json.dumps({**GOOD, "cwd": long_path})).cwd == long_path
    parse(json.dumps({**GOOD, "read": ["/etc/" + "é" * 127 + "a"]}))
    parse(json.dumps({**GOOD, "argv": ["/a", "a" * (128 * 1024 - 1)]}))
    parse(json.dumps({**GOOD, "argv": ["/a", *["a" * 100_000] * 10]}))
    parse(json.dumps({**GOOD, "env": {"A": "a" * (128 * 1024 - 3)}}))


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


surrogates = st.characters(categories=["Cs"])
hard_texts = st.text(st.characters() | surrogates | st.sampled_from("/.\0=é😀"), max_size=40)
numbers = st.integers() | st.floats() | st.integers(-(2**80), 2**80) | st.booleans()
hard_fields = {
    "tool": hard_texts,
    "argv": st.lists(hard_texts | st.just("/usr/bin/true"), max_size=300),
    "runtime": st.sampled_from(["native", "python", "wasm", "", None, 1]),
    "zygote": st.sampled_from([True, False, None, 1]),
    "env": st.dictionaries(hard_texts, hard_texts | numbers, max_size=70),
    "network": st.sampled_from(["none", "egress", "host", None, 1]),
    "stdin": numbers,
    "cwd": hard_texts | st.none() | numbers,
    "home": st.sampled_from(["none", "read", "write", "all", "", None, 1]),
    "home_owner": numbers | st.none() | hard_texts,
    "read": st.lists(hard_texts.map(lambda t: "/etc/" + t) | numbers, max_size=40) | hard_texts,
    "sockets": st.lists(hard_texts, max_size=10),
    "groups": st.lists(hard_texts | st.just("adm"), max_size=10) | st.none(),
    "host_proc": numbers | st.none(),
    "run_as": hard_texts,
    "quota": hard_texts | numbers,
    "seccomp": hard_texts | st.lists(numbers),
    "session": hard_texts | st.just("0123456789abcdef") | numbers,
    "wall_s": numbers | hard_texts | st.none(),
}


how_texts = st.sampled_from(["chain", "parallel", "", None])
easy_calls = st.sampled_from([{}, {"stdin": True}, {"home_owner": 0}, {"home_owner": 7}])
hard_calls = st.fixed_dictionaries({}, optional=hard_fields) | json_values


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=2000)
@given(how_texts, st.lists(easy_calls, max_size=9) | st.lists(easy_calls | hard_calls, max_size=9))
def test_whatever_comes_a_group_or_a_refusal_comes_out(how: Any, calls: list[Any]) -> None:
    made = [{**GOOD, **call} if isinstance(call, dict) else call for call in calls]
    try:
        group = parse_group(json.dumps({"how": how, "calls": made}))
    except SpecInvalid as error:
        error.message.encode()
        return
    event("a group")
    assert 1 <= len(group.calls) <= 7
    assert len({spec.home_owner or 0 for spec in group.calls}) == 1
    inputs = [spec.stdin for spec in group.calls]
    assert all(inputs[1:]) if group.how == "chain" else sum(inputs) <= 1
    assert [parse(json.dumps({**GOOD, **call})) for call in made] == list(group.calls)


def test_every_field_is_tried() -> None:
    assert set(hard_fields) == set(Spec.__struct_fields__)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=2000)
@given(st.fixed_dictionaries({}, optional=hard_fields), st.booleans())
def test_hard_values_in_every_field(fuzz: dict[str, Any], ascii_only: bool) -> None:
    try:
        spec = parse(json.dumps({**GOOD, **fuzz}, ensure_ascii=ascii_only))
    except SpecInvalid as error:
        error.message.encode()
        return
    texts = (*spec.argv, *spec.env, *spec.env.values(), *spec.read, *spec.sockets, spec.cwd or "/")
    assert not any("\0" in text for text in texts)
    "".join(texts).encode()
    assert not spec.session or int(spec.session, 16) >= 0
    assert spec.wall_s is None or 0 < spec.wall_s <= 86400
    assert spec.home_owner is None or 0 <= spec.home_owner < 2**32 - 1


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with pytest.raises(SpecInvalid):
        parse(text)


@given(st.text(alphabet="/.a\0", max_size=12))
def test_a_clean_path_has_one_spelling(path: str) -> None:
    if is_clean(path):
        assert path == "/" or all(part not in ("", ".", "..") for part in path[1:].split("/"))
