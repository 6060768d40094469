"""The compiled filters, by an evaluator of our own that shares no code with the compiler."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawos.core.errors import ConfigInvalid
from clawos.isolator.seccomp import profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES, compile_rules, encode
from clawos.isolator.seccomp.numbers import resolve
from clawos.isolator.seccomp.profile import ALLOW, DENY, Comparison, Rule

from .conftest import POLICIES, PROFILES

SECCOMP = POLICIES / "seccomp"
X86 = ARCHITECTURES["x86_64"]
ALLOWED, EPERM, ENOSYS, KILLED = 0x7FFF0000, 0x50000 + errno.EPERM, 0x50000 + errno.ENOSYS, 0x80000000
LIMITS = {"shell": 148, "python": 125}


def evaluate(blob: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = 0xC000003E) -> int:
    """Run a filter as the kernel does: struct seccomp_data in, return value out."""
    words = [a & (2**64 - 1) for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<iIQ6Q", number if number < 2**31 else number - 2**32, arch, 0, *words)
    accumulator, at = 0, 0
    for _ in range(len(blob) // 8):
        code, jump_true, jump_false, k = struct.unpack_from("<HBBI", blob, at * 8)
        at += 1
        match code:
            case 0x20:  # load a word
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x54:  # and
                accumulator &= k
            case 0x05:  # jump
                at += k
            case 0x15:  # jump if equal
                at += jump_true if accumulator == k else jump_false
            case 0x35:  # jump if not below
                at += jump_true if accumulator >= k else jump_false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"instruction {code:#x}")
    raise AssertionError("the filter does not end")


@pytest.fixture(params=PROFILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rules(name: str) -> dict[str, Rule]:
    return profile.load(SECCOMP, name)


@pytest.fixture
def blob(filters_path: Path, name: str) -> bytes:
    return (filters_path / f"{name}.bpf").read_bytes()


def test_every_number_gets_what_its_profile_says(rules: dict[str, Rule], blob: bytes) -> None:
    numbered = {resolve(call, X86): rule for call, rule in rules.items()}
    for number in range(1024):
        rule = numbered.get(number)
        answer = evaluate(blob, number)
        if rule is None:
            assert answer == ENOSYS, number
        elif rule == ALLOW:
            assert answer == ALLOWED, number
        elif rule == DENY:
            assert answer == EPERM, number


BOUNDARIES = (0, 1, 2, 15, 16, 38, 40, 47, 0x5401, 0x5412, 0x541C, 0x7E020000, 0x80, 2**31, 2**32 - 1)


def test_arguments_are_judged_by_their_low_half(rules: dict[str, Rule], blob: bytes) -> None:
    judged = {resolve(call, X86): rule for call, rule in rules.items() if rule not in (ALLOW, DENY)}
    assert judged
    for number, rule in judged.items():
        assert number is not None
        values = {*BOUNDARIES, *(t.value for tests in rule.alternatives for t in tests)}
        for low in values:
            for high in (0, 1, 2**32 - 1):
                for position in {t.arg for tests in rule.alternatives for t in tests}:
                    arguments = tuple(low | high << 32 if i == position else 0 for i in range(6))
                    wanted = any(
                        all(arguments[t.arg] & t.mask & 0xFFFFFFFF == t.value for t in tests)
                        for tests in rule.alternatives
                    )
                    assert evaluate(blob, number, arguments) == (ALLOWED if wanted else EPERM), (
                        number,
                        arguments,
                    )


@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("socket", (1, 1, 0), ALLOWED),
        *[("socket", (family, 1, 0), EPERM) for family in range(46) if family != 1],
        ("clone", (0x11,), ALLOWED),
        *[("clone", (0x11 | 1 << bit,), EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)],
        ("clone3", (0,), ENOSYS),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 0x541C), EPERM),
        ("ioctl", (0, 0xFFFFFFFF00005412), EPERM),
        ("ioctl", (0, 0x5401), ALLOWED),
        ("prctl", (22,), EPERM),  # PR_SET_SECCOMP
        ("prctl", (28,), EPERM),  # PR_SET_SECUREBITS
        ("prctl", (47, 2), EPERM),  # PR_CAP_AMBIENT_RAISE
        ("prctl", (47, 1), ALLOWED),  # PR_CAP_AMBIENT_IS_SET
        ("prctl", (38,), ALLOWED),
        ("io_uring_setup", (), EPERM),
        ("keyctl", (), EPERM),
        ("ptrace", (), EPERM),
        ("unshare", (), EPERM),
        ("mount", (), EPERM),
        ("fsmount", (), EPERM),
        ("userfaultfd", (), EPERM),
        ("bpf", (), EPERM),
        ("inotify_init", (), ENOSYS),
        ("inotify_init1", (), ENOSYS),
        *[(call, (0, mode), ALLOWED) for call in ("chmod", "fchmod") for mode in (0, 0o755, 0o1777)],
        *[(call, (0, mode), EPERM) for call in ("chmod", "fchmod") for mode in (0o4755, 0o2755, 0o6000)],
        *[("fchmodat", (0, 0, mode), ALLOWED) for mode in (0o644, 0o1777)],
        *[("fchmodat", (0, 0, mode), EPERM) for mode in (0o4755, 0o2755, 1 << 32 | 0o6000)],
    ],
)
def test_known_cases(blob: bytes, call: str, arguments: tuple[int, ...], answer: int) -> None:
    number = resolve(call, X86)
    assert number is not None
    assert evaluate(blob, number, arguments) == answer


def test_other_architectures_and_x32_are_killed(blob: bytes) -> None:
    for arch in (0x40000003, 0xC00000B7, 0, 0xFFFFFFFF):
        assert evaluate(blob, 0, arch=arch) == KILLED
    for number in (0, 1, 41, 1000, 2**29):
        assert evaluate(blob, 0x40000000 | number) == KILLED


def test_personality_stays_as_it_is(filters_path: Path) -> None:
    blob = (filters_path / "shell.bpf").read_bytes()
    assert [evaluate(blob, 135, (a,)) for a in (0, 0xFFFFFFFF, 0x0040000, 8)] == [
        ALLOWED,
        ALLOWED,
        EPERM,
        EPERM,
    ]


def test_profiles_stay_small(name: str, rules: dict[str, Rule], blob: bytes) -> None:
    assert sum(rule != DENY for rule in rules.values()) <= LIMITS[name]
    assert len(blob) // 8 < 450, "the cost of installing a filter grows with its length"


def test_every_file_keeps_to_the_schema() -> None:
    schema = json.loads((POLICIES / "schema" / "seccomp.schema.json").read_text())
    validate = fastjsonschema.compile(schema)
    files = [*SECCOMP.glob("*.json"), *SECCOMP.glob("layers/*.json")]
    assert len(files) >= 7
    for file in files:
        validate(json.loads(file.read_text()))
    with pytest.raises(fastjsonschema.JsonSchemaException):
        validate({"description": "x", "allow": ["read"], "allow_all": True})


tests = st.builds(Comparison, arg=st.integers(0, 5), mask=st.just(2**32 - 1), value=st.integers(0, 2**32 - 1))
some_rules = st.sampled_from([ALLOW, DENY]) | st.builds(
    Rule, st.lists(st.lists(tests, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4).map(tuple)
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, 460), some_rules, min_size=1, max_size=200))
def test_any_set_of_rules_compiles_to_itself(rules: dict[int, Rule]) -> None:
    blob = encode(compile_rules(rules, X86))
    for number in range(470):
        rule = rules.get(number)
        hits = rule.alternatives[:1] if rule else ()
        arguments = [0] * 6
        for test in hits[0] if hits else ():
            arguments[test.arg] = test.value
        fits = rule is not None and any(
            all(arguments[t.arg] == t.value for t in ts) for ts in rule.alternatives
        )
        wanted = ENOSYS if rule is None else ALLOWED if fits else EPERM
        assert evaluate(blob, number, tuple(arguments)) == wanted


def write(directory: Path, **files: Any) -> Path:
    (directory / "layers").mkdir()
    for name, content in files.items():
        path = directory / ("layers" if name.startswith("layer") else "") / f"{name}.json"
        path.write_text(json.dumps({"description": "x", **content}))
    return directory


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"p": {"allow": ["read"], "deny": ["read"]}}, "read is named twice"),
        (
            {"p": {"include": ["layer"], "allow": ["read"]}, "layer": {"allow": ["read"]}},
            "read is named twice",
        ),
        ({"p": {"include": ["layer"]}, "layer": {"include": ["layer"]}}, "includes no layer"),
        ({"p": {"include": ["missing"]}}, "No such file"),
        ({"p": {"permit": ["read"]}}, "unknown field"),
        ({"p": {"conditional": [{"syscall": "a", "reason": "b", "only": []}]}}, "length >= 1"),
        (
            {"p": {"conditional": [{"syscall": "a", "reason": "b", "only": [[{"arg": 6, "value": 0}]]}]}},
            "arg",
        ),
        (
            {
                "p": {
                    "conditional": [
                        {"syscall": "a", "reason": "b", "only": [[{"arg": 0, "mask": 1, "value": 2}]]}
                    ]
                }
            },
            "outside its mask",
        ),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        profile.load(write(tmp_path, **files), "p")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="no_such_call"):
        resolve("no_such_call", X86)


def test_the_other_architecture_compiles_too(name: str, rules: dict[str, Rule]) -> None:
    arm = ARCHITECTURES["aarch64"]
    numbered = {n: rule for call, rule in rules.items() if (n := resolve(call, arm)) is not None}
    blob = encode(compile_rules(numbered, arm))
    write_number, mount_number = resolve("write", arm), resolve("mount", arm)
    assert write_number is not None
    assert mount_number is not None
    assert evaluate(blob, write_number, arch=arm.token) == ALLOWED
    assert evaluate(blob, mount_number, arch=arm.token) == EPERM
    assert evaluate(blob, write_number, arch=X86.token) == KILLED
