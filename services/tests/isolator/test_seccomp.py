"""The compiled filters, by two evaluators: our own (in the product, beside the compiler) and the kernel's.

What may be called is written down a second time (`allowed.json` and the lists below), which no command makes
anew from the profiles: a slip in one place is no hole yet.
"""

from __future__ import annotations

import errno
import json
import random
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawos.core.errors import ConfigInvalid
from clawos.isolator.seccomp import check, crosscheck, profile
from clawos.isolator.seccomp.__main__ import compile_profile, main
from clawos.isolator.seccomp.check import Case, cases
from clawos.isolator.seccomp.compiler import ARCHITECTURES, Architecture, compile_rules, encode
from clawos.isolator.seccomp.evaluate import Answer
from clawos.isolator.seccomp.evaluate import evaluate as run_filter
from clawos.isolator.seccomp.numbers import numbered, resolve
from clawos.isolator.seccomp.profile import ALLOW, DENY, Comparison, Rule

from .conftest import POLICIES, PROFILES

SECCOMP = POLICIES / "seccomp"
X86, ARM = ARCHITECTURES["x86_64"], ARCHITECTURES["aarch64"]
ALLOWED, EPERM, ENOSYS, KILLED = 0x7FFF0000, 0x50000 + errno.EPERM, 0x50000 + errno.ENOSYS, 0x80000000
LIMITS = {"shell": 150, "shell-egress": 150, "python": 125, "python-egress": 125, "wasm": 60}


def evaluate(blob: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = X86.token) -> int:
    return run_filter(blob, arch, number, arguments)


@pytest.fixture(params=PROFILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=ARCHITECTURES.values(), ids=lambda a: a.name)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    made: Architecture = request.param
    return made


@pytest.fixture
def rules(name: str) -> dict[str, Rule]:
    return profile.load(SECCOMP, name, X86.name)


@pytest.fixture
def blob(filters_path: Path, name: str) -> bytes:
    return (filters_path / f"{name}.bpf").read_bytes()


def test_each_filter_says_what_its_profile_says(name: str, architecture: Architecture) -> None:
    made = compile_profile(SECCOMP, name, architecture)
    by_number = numbered(profile.load(SECCOMP, name, architecture.name), architecture)
    asked = check.verify(made, by_number, architecture)
    assert asked > 10_000, "every number, and each judged argument at its boundaries"


def test_libseccomp_makes_the_same_of_each_profile(name: str, architecture: Architecture) -> None:
    made = compile_profile(SECCOMP, name, architecture)
    loaded = profile.load(SECCOMP, name, architecture.name)
    assert crosscheck.compare(made, loaded, architecture) > 10_000


Ask = Callable[[bytes, Iterable[Case], bool], list[int]]

# Kernels let uretprobe(2) and uprobe(2) past every filter: they only work where the kernel put them.
PAST_FILTERS = (335, 336)


@pytest.fixture(scope="session")
def ask_kernel(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """What the kernel answers to calls under a filter; it carries none of them out."""
    directory = tmp_path_factory.mktemp("kernel")
    program = directory / "kernel_filter"
    source = Path(__file__).with_name("kernel_filter.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)

    def ask(blob: bytes, asked: Iterable[Case], by_int80: bool = False) -> list[int]:
        file = directory / "filter"
        file.write_bytes(blob)
        calls = b"".join(struct.pack("<8Q", case.number, *case.arguments, by_int80) for case in asked)
        done = subprocess.run([program, file], input=calls, stdout=subprocess.PIPE, check=True, timeout=300)
        return [word for (word,) in struct.iter_unpack("<I", done.stdout)]

    return ask


def for_the_kernel(rules: dict[int, Rule], architecture: Architecture) -> list[Case]:
    """All cases that this kernel can be asked; each that kills costs a process, so of those every tenth."""
    asked = [c for c in cases(rules, architecture) if c.token == architecture.token]
    killing = [c for c in asked if c.answer == KILLED]
    return [c for c in asked if c.answer != KILLED and c.number not in PAST_FILTERS] + killing[::10]


def test_the_kernel_answers_as_the_profile_says(
    name: str, architecture: Architecture, ask_kernel: Ask
) -> None:
    made = compile_profile(SECCOMP, name, architecture)
    by_number = numbered(profile.load(SECCOMP, name, architecture.name), architecture)
    # This kernel runs no programs of the other architecture; all of its filter but one constant does run.
    made = made.replace(struct.pack("<I", architecture.token), struct.pack("<I", X86.token))
    asked = for_the_kernel(by_number, architecture)
    assert len(asked) > 10_000
    answers = ask_kernel(made, asked, False)
    wrong = [(case, hex(got)) for case, got in zip(asked, answers, strict=True) if got != case.answer]
    assert wrong == []


def test_the_kernel_kills_32_bit_calls(blob: bytes, ask_kernel: Ask) -> None:
    asked = [
        Case(0, number, (0,) * 6, Answer.KILLED) for number in (1, 4, 20, 102, 120)
    ]  # exit … socketcall, clone
    assert ask_kernel(blob, asked, True) == [KILLED] * len(asked)
    everything = struct.pack("<HBBI", 0x06, 0, 0, ALLOWED)
    control = ask_kernel(everything, asked[2:3], True)
    assert control == [ALLOWED], "without our filter, getpid by int 0x80 gets through"


FAMILIES = [("socket", (family, 1, 0), EPERM) for family in range(46) if family not in (1, 2)]
NO_NETWORK = [("socket", (2, 1, 0), EPERM), ("sendto", (0, 0, 0, 0x20000000), ALLOWED)]
STREAM, DATAGRAM, RAW, PACKET = 1, 2, 3, 10
TCP, UDP, MPTCP = 6, 17, 262
FAST_OPEN = 0x20000000
EGRESS = [
    *[
        ("socket", (2, STREAM | flags, protocol), ALLOWED)
        for flags in (0, 0x800, 0x80800)
        for protocol in (0, TCP)
    ],
    *[("socket", (2, STREAM, protocol), EPERM) for protocol in (1, 7, UDP, MPTCP, 132, 255)],
    *[("socket", (2, kind, 0), EPERM) for kind in (DATAGRAM, RAW, 4, 5, 6, PACKET, 0, STREAM | 0x100)],
    ("socket", (2, DATAGRAM, UDP), EPERM),
    ("socket", (2, RAW, 255), EPERM),
    ("socketpair", (1, 1, 0), ALLOWED),
    ("sendto", (3, 0, 5, 0x4000, 0, 0), ALLOWED),  # MSG_NOSIGNAL
    ("sendto", (3, 0, 5, FAST_OPEN, 0, 16), EPERM),
    ("sendto", (3, 0, 5, FAST_OPEN | 0x4000, 0, 16), EPERM),
    ("sendmsg", (3, 0, 0), ALLOWED),
    ("sendmsg", (3, 0, FAST_OPEN), EPERM),
    ("setsockopt", (3, 1, 2), ALLOWED),  # SO_REUSEADDR
    *[("setsockopt", (3, 6, option), ALLOWED) for option in (1, 4, 5, 6)],  # NODELAY, KEEP…
    *[
        ("setsockopt", (3, 6, option), EPERM) for option in (13, 14, 19, 23, 30, 31, 38)
    ],  # MD5SIG, REPAIR, ULP, AO …
    *[
        ("setsockopt", (3, level, 1), EPERM) for level in (17, 41, 255, 263, 282)
    ],  # UDP, IPv6, raw, packet, TLS
    *[
        ("setsockopt", (3, 0, option), EPERM) for option in (3, 15, 19, 64)
    ],  # HDRINCL, FREEBIND, TRANSPARENT, tables
]
EVERYWHERE = [
    *[("clone", (0x11 | 1 << bit,), EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)],
    *[("clone", (0x50F00 | 1 << bit,), EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)],
    ("clone", (0x3D0F00,), ALLOWED),  # a thread
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
    ("inotify_init", (), ENOSYS),
    ("inotify_init1", (), ENOSYS),
    ("memfd_create", (), ENOSYS),
]
PROGRAMS = [
    ("socket", (1, 1, 0), ALLOWED),
    *FAMILIES,
    ("socketpair", (1, 1, 0), ALLOWED),
    ("socketpair", (2, 1, 0), EPERM),
    ("clone", (0x11,), ALLOWED),
    *[(call, (0, mode), ALLOWED) for call in ("chmod", "fchmod") for mode in (0, 0o755, 0o1777)],
    *[(call, (0, mode), EPERM) for call in ("chmod", "fchmod") for mode in (0o4755, 0o2755, 0o6000)],
    *[("fchmodat", (0, 0, mode), ALLOWED) for mode in (0o644, 0o1777)],
    *[("fchmodat", (0, 0, mode), EPERM) for mode in (0o4755, 0o2755, 1 << 32 | 0o6000)],
]
FIFO, DEVICES = 0o010644, (0o020644, 0o060644, 0o140644, 0o100644, 0o030644)
KNOWN = {
    "python": [*EVERYWHERE, *PROGRAMS, *NO_NETWORK, ("mknodat", (0, 0, FIFO), EPERM)],
    "shell": [
        *EVERYWHERE,
        *PROGRAMS,
        *NO_NETWORK,
        ("mknodat", (0, 0, FIFO), ALLOWED),
        *[("mknodat", (0, 0, mode), EPERM) for mode in DEVICES],
    ],
    "python-egress": [*EVERYWHERE, *PROGRAMS, *EGRESS],
    "shell-egress": [*EVERYWHERE, *PROGRAMS, *EGRESS],
    "wasm": [
        *EVERYWHERE,
        ("clone", (0x11,), EPERM),
        ("clone", (0x4111,), EPERM),  # as vfork does
        *[
            (call, (1,), ENOSYS)
            for call in ("socket", "socketpair", "connect", "fork", "vfork", "kill", "pipe2")
        ],
    ],
}


def test_known_cases(name: str, blob: bytes) -> None:
    for call, arguments, answer in KNOWN[name]:
        number = resolve(call, X86)
        assert number is not None
        assert evaluate(blob, number, arguments) == answer, (call, arguments)


# What most ways out of a sandbox, or into the kernel, begin with: no profile allows it, with no arguments.
DOORS = (  # noqa: SIM905 # one line a name would be a page
    "acct add_key adjtimex bpf capset chroot clock_adjtime clock_settime delete_module fanotify_init "
    "fanotify_mark finit_module fsconfig fsmount fsopen fspick init_module io_uring_enter "
    "io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl "
    "landlock_create_ruleset lookup_dcookie memfd_secret migrate_pages mknod modify_ldt mount "
    "mount_setattr move_mount move_pages name_to_handle_at open_by_handle_at open_tree "
    "perf_event_open personality pidfd_getfd pivot_root process_madvise process_vm_readv "
    "process_vm_writev ptrace "
    "quotactl quotactl_fd reboot request_key seccomp setdomainname setfsgid setfsuid setgid setgroups "
    "sethostname setns setregid setresgid setresuid setreuid settimeofday setuid splice swapoff "
    "swapon syslog tee umount2 unshare userfaultfd vhangup vmsplice chown fchown lchown fchownat"
).split()


def test_known_doors_are_shut(blob: bytes) -> None:
    for call in DOORS:
        number = resolve(call, X86)
        assert number is not None
        for arguments in ((), (2**64 - 1,) * 6):
            assert evaluate(blob, number, arguments) == EPERM, call


def test_what_is_allowed_is_written_down_twice(name: str, rules: dict[str, Rule]) -> None:
    assert in_words(rules) == ALLOWED_LISTS[name], "if this is what you want, say so in allowed.json too"


def in_words(rules: dict[str, Rule]) -> dict[str, str]:
    """`{"socket": "0=0x1", "clone": "0&0x7e020000=0x0"}`: alternatives by "or", tests by "and"."""

    def words(test: Comparison) -> str:
        mask = f"&{test.mask:#x}" if test.mask != 2**32 - 1 else ""
        return f"{test.arg}{mask}={test.value:#x}"

    return {
        call: " or ".join(" and ".join(map(words, tests)) or "any" for tests in rule.alternatives)
        for call, rule in sorted(rules.items())
        if rule.alternatives
    }


ALLOWED_LISTS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("allowed.json").read_text())


Arguments = tuple[int, ...]


def mutations(rules: dict[int, Rule]) -> Iterator[tuple[int, Rule | None, Arguments | None]]:
    """One rule turned over, dropped or loosened by a bit at a time, for every number there is.

    With the third comes a call that only the loosened rule allows.
    """
    for number in range(463):
        rule = rules.get(number)
        yield from ((number, other, None) for other in (ALLOW, DENY, None) if other != rule)
        if rule is None or rule.is_plain:
            continue
        for index, tests in enumerate(rule.alternatives):
            others = rule.alternatives[:index] + rule.alternatives[index + 1 :]
            yield number, Rule(others), None
            for place, test in enumerate(tests):
                kept = tests[:place] + tests[place + 1 :]
                yield number, Rule((*others, kept)), None
                for bit in (bit for bit in range(32) if test.mask >> bit & 1):
                    looser = Comparison(test.arg, test.mask & ~(1 << bit), test.value & ~(1 << bit))
                    let_in = {t.arg: t.value for t in kept} | {test.arg: test.value ^ 1 << bit}
                    arguments = tuple(let_in.get(arg, 0) for arg in range(6))
                    if check.wanted(rule, arguments) != ALLOWED:
                        yield number, Rule((*others, (*kept, looser))), arguments


def test_every_mutation_of_a_rule_is_noticed(rules: dict[str, Rule]) -> None:
    """Among the cases that the image's build tries is one that tells any other filter from the profile's."""
    by_number = numbered(rules, X86)
    asked = {n: {c.arguments: c for c in check.cases_of(n, by_number.get(n), X86)} for n in range(463)}
    tried = 0
    for number, mutated, telling in mutations(by_number):
        tried += 1
        cases_here = asked[number].values() if telling is None else [asked[number][telling]]
        case = next(c for c in cases_here if check.wanted(mutated, c.arguments) != c.answer)
        # The filter of one rule: what it makes of other numbers does not matter here.
        made = encode(compile_rules({number: mutated} if mutated else {number + 1: DENY}, X86))
        assert evaluate(made, number, case.arguments) != case.answer, (number, mutated)
    assert tried > 1500


def test_mutations_of_the_filter_itself_are_noticed(name: str, rules: dict[str, Rule], blob: bytes) -> None:
    """Wrong instructions, as a fault of the compiler would leave them."""
    by_number = numbered(rules, X86)
    chosen = random.Random(0)
    places = [
        at for at in range(0, len(blob), 8) if struct.unpack_from("<H", blob, at)[0] in (0x06, 0x15, 0x35)
    ]
    for at in chosen.sample(places, 25):
        code, jump_true, jump_false, k = struct.unpack_from("<HBBI", blob, at)
        if code == 0x06:
            k = ALLOWED if k != ALLOWED else EPERM
        else:
            jump_true, jump_false = jump_false, jump_true
        mutated = blob[:at] + struct.pack("<HBBI", code, jump_true, jump_false, k) + blob[at + 8 :]
        with pytest.raises(ConfigInvalid):
            check.verify(mutated, by_number, X86)


def test_libseccomp_notices_a_weaker_filter(rules: dict[str, Rule]) -> None:
    for call in ("ptrace", "ioctl", "clone3"):
        weaker = encode(compile_rules(numbered(rules | {call: ALLOW}, X86), X86))
        with pytest.raises(ConfigInvalid, match="from libseccomp"):
            crosscheck.compare(weaker, rules, X86)


def test_the_kernel_notices_a_weaker_filter(rules: dict[str, Rule], ask_kernel: Ask) -> None:
    weaker = encode(compile_rules(numbered(rules | {"ptrace": ALLOW}, X86), X86))
    asked = for_the_kernel(numbered(rules, X86), X86)
    answers = ask_kernel(weaker, asked, False)
    wrong = {case.number for case, got in zip(asked, answers, strict=True) if got != case.answer}
    assert wrong == {resolve("ptrace", X86)}


def test_a_filter_that_fails_its_check_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.json").write_text('{"description": "x", "allow": ["read"], "deny": ["ptrace"]}')
    command = ["compile", str(tmp_path), str(tmp_path / "out"), "x86_64", "aarch64"]
    assert main(command) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "p.bpf",
        "p.aarch64.bpf",
        "syscalls.json",
    }
    monkeypatch.setattr(
        "clawos.isolator.seccomp.__main__.compile_rules",
        lambda rules, architecture: compile_rules({**rules, 101: ALLOW}, architecture),
    )
    assert main(["compile", str(tmp_path), str(tmp_path / "none")]) == 1
    assert "gets 0x7fff0000 instead of EPERM" in capsys.readouterr().err
    assert list((tmp_path / "none").iterdir()) == []


def test_other_architectures_and_x32_are_killed(blob: bytes) -> None:
    for arch in (0x40000003, 0xC00000B7, 0, 0xFFFFFFFF):
        assert evaluate(blob, 0, arch=arch) == KILLED
    for number in (0, 1, 41, 1000, 2**29):
        assert evaluate(blob, 0x40000000 | number) == KILLED


def test_profiles_stay_small(name: str, architecture: Architecture, blob: bytes) -> None:
    by_number = numbered(profile.load(SECCOMP, name, architecture.name), architecture)
    assert sum(rule != DENY for rule in by_number.values()) <= LIMITS[name]
    assert len(blob) // 8 < 450, "the cost of installing a filter grows with its length"


@pytest.mark.parametrize(
    "call", ["rename", "link", "stat", "open", "pipe", "dup2", "epoll_wait", "access", "poll"]
)
def test_the_other_architecture_has_something_in_the_place_of(call: str) -> None:
    newer = {
        "rename": "renameat",
        "link": "linkat",
        "stat": "newfstatat",
        "open": "openat",
        "pipe": "pipe2",
        "dup2": "dup3",
        "epoll_wait": "epoll_pwait",
        "access": "faccessat",
        "poll": "ppoll",
    }
    assert resolve(call, ARM) is None
    for name in ("python", "python-egress", "shell", "shell-egress"):
        assert profile.load(SECCOMP, name, ARM.name)[newer[call]] == ALLOW


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
        ({"p": {"like": "q", "instead": {"a": "b"}}, "q": {}}, "q does not include a"),
        ({"p": {"like": "q"}, "q": {}}, "like and instead go together"),
        ({"p": {"like": "q", "instead": {"a": "b"}, "include": ["a"]}}, "without include"),
        ({"p": {"permit": ["read"]}}, "unknown field"),
        ({"p": {"allow": ["read"], "reasons": {"write": "why"}}}, "reasons names what is not listed: write"),
        ({"p": {"allow": ["read"], "allow_on": {"x86_64": ["read"]}}}, "read is named twice"),
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
        profile.load(write(tmp_path, **files), "p", "x86_64")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="no_such_call"):
        resolve("no_such_call", X86)
