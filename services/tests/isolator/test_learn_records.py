"""From a ring's bytes to calls, without a kernel: samples that one wrote, and a ring filled here."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawos.isolator.learn.calls import Calls, Made
from clawos.isolator.learn.perf import MACHINES, Machine, Ring, Tracepoints, Unwatchable
from clawos.isolator.learn.records import Arguments, Began, Ended, Forked, Parser, Record
from clawos.isolator.learn.report import Call, Refusal, report
from clawos.isolator.seccomp import numbers, profile
from clawos.isolator.seccomp.__main__ import compile_profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES

from .conftest import POLICIES

# As Linux 6.18 wrote them on x86_64: a set_robust_list(2) begins, clone(2) ends in the child, a fork, an end.
ENTER = bytes.fromhex(
    "09000000010068009c0800009c08000027ede424c546000044000000bb0100019c0800001101000000000000207ab159387f0000"
    "18000000000000000000000000000000107ab159387f00000000000000000000010000000000000000000000b4830d0000000000"
)
EXIT = bytes.fromhex(
    "09000000010078009c0800009c080000d9c1e424c54600001c000000ba0100019c08000038000000000000000000000000000000"
    "00000000020000000000000000000000000000000000000000000000110020010000000000000000000000000100000000000000"
    "107ab159387f0000b4830d0000000000"
)
FORK = bytes.fromhex("07000000000020009b0800009a0800009b0800009a080000d604db24c5460000")
THREAD_END = bytes.fromhex("04000000000020009c0800009a0800009c0800009a08000051650c25c5460000")
TRACEPOINTS = Tracepoints(443, 442)


def parsed(data: bytes, machine: Machine = MACHINES["x86_64"]) -> list[Record]:
    return list(Parser(TRACEPOINTS, machine).parse(data))


def test_samples_of_a_kernel_are_understood() -> None:
    began, ended, forked = parsed(ENTER + THREAD_END + EXIT + FORK)
    list_at = 0x7F3859B17A10
    assert began == Began(77812541484327, 2204, 885684, 273, (list_at + 16, 24, 0, list_at, 0, 1))
    assert ended == Ended(77812541473241, 2204, 885684, 56, (0x1200011, 0, 0, list_at, 0, 1), 0)
    assert forked == Forked(77812540835030, 2203, 2202)


def test_what_no_kernel_writes_is_an_error() -> None:
    for data in (
        ENTER[:7],
        ENTER[:-1],
        bytes(8),
        struct.pack("<IHH", 9, 0, 8),
        sample(FORK, FORK[:-8]),
        sample(ENTER, ENTER[:-8]),
        sample(EXIT, EXIT + bytes(8)),
        ENTER[:28] + struct.pack("<H", 442) + ENTER[30:],
        EXIT[:28] + struct.pack("<H", 444) + EXIT[30:],
    ):
        with pytest.raises(Unwatchable, match="no form known"):
            parsed(ENTER + data)


def sample(like: bytes, body: bytes) -> bytes:
    """Its bytes with the length that they have."""
    return like[:6] + struct.pack("<H", len(body)) + body[8:]


@given(st.data())
def test_broken_records_break_nothing_else(data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.sampled_from([ENTER, EXIT, FORK, THREAD_END]), max_size=4))
    stream = bytearray(b"".join(parts))
    for at, value in data.draw(st.dictionaries(st.integers(0, 511), st.integers(0, 255), max_size=8)).items():
        if at < len(stream):
            stream[at] = value
    del stream[data.draw(st.integers(0, len(stream))) :]
    calls = Calls(SECCOMP, {273: frozenset({0, 1})})
    try:
        for record in parsed(bytes(stream)):
            calls.add(record)
    except Unwatchable:
        pass


@given(st.binary(max_size=300))
def test_noise_breaks_nothing(noise: bytes) -> None:
    with suppress(Unwatchable):
        parsed(noise)


def test_a_caller_without_registers_has_no_arguments() -> None:
    bare = sample(EXIT, EXIT[:56] + bytes(8) + EXIT[-8:])
    (ended,) = parsed(bare)
    assert isinstance(ended, Ended)
    assert ended.arguments == (None,) * 6
    assert ended.cgroup_id == 885684


def test_an_arm_does_not_tell_the_first_argument_of_what_ended() -> None:
    arm = MACHINES["aarch64"]
    assert arm.mask == 0b111110
    registers = struct.pack("<6Q", 2, 11, 12, 13, 14, 15)
    (ended,) = parsed(sample(EXIT, EXIT[:56] + registers + EXIT[-8:]), arm)
    assert isinstance(ended, Ended)
    assert ended.arguments == (None, 11, 12, 13, 14, 15)


SECCOMP, SOCKET, READ, EXECVE, CLONE, SIGRETURN = 317, 41, 0, 59, 56, 15
LEAF = 7


class Story:
    """What threads do, one after the other."""

    def __init__(self, judged: dict[int, frozenset[int]] | None = None) -> None:
        self.calls = Calls(SECCOMP, judged or {})
        self._time_ns = 0

    def begin(self, tid: int, number: int, *arguments: int) -> None:
        words = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
        self.calls.add(Began(self._now(), tid, LEAF, number, words))

    def end(
        self, tid: int, number: int, returned: int = 0, arguments: tuple[int | None, ...] = (0,) * 6
    ) -> None:
        self.calls.add(Ended(self._now(), tid, LEAF, number, arguments, returned))

    def call(self, tid: int, number: int, *arguments: int, returned: int = 0) -> None:
        self.begin(tid, number, *arguments)
        self.end(tid, number, returned)

    def fork(self, tid: int, child: int) -> None:
        self.begin(tid, CLONE)
        self.calls.add(Forked(self._now(), child, tid))
        self.end(child, CLONE)
        self.end(tid, CLONE, child)

    def made(self) -> dict[tuple[int, int], int]:
        return {(one.number, one.refused): times for one, times in self.calls.made(LEAF).items()}

    def _now(self) -> int:
        self._time_ns += 1
        return self._time_ns


def confined(tid: int, filters: int = 1, judged: dict[int, frozenset[int]] | None = None) -> Story:
    story = Story(judged)
    story.call(tid, READ)
    for _ in range(filters):
        story.call(tid, SECCOMP, 1)
        story.call(tid, READ)
    return story


@pytest.mark.parametrize("filters", [1, 2])
def test_what_comes_before_the_last_filter_is_not_the_tools(filters: int) -> None:
    """The launcher loads one; claw-confine two, and what it calls between them is its own."""
    story = confined(5, filters)
    assert story.made() == {(READ, 0): 1}


def test_a_thread_without_a_filter_is_not_watched() -> None:
    story = Story()
    story.call(5, READ)
    story.call(5, SECCOMP, 1, returned=-22)
    story.call(5, SECCOMP, 2)  # SECCOMP_GET_ACTION_AVAIL
    story.call(5, READ)
    assert story.made() == {}


def test_a_refused_call_ends_without_having_begun() -> None:
    story = confined(5, judged={SOCKET: frozenset({0})})
    story.end(5, SOCKET, -1, (2, 1, 0, 0, 0, 0))
    story.end(5, SECCOMP, -1, (1, 0, 0, 0, 0, 0))
    story.call(5, READ, returned=-4)
    assert story.calls.made(LEAF) == {
        Made(LEAF, SOCKET, (2, 0, 0, 0, 0, 0), 1): 1,
        Made(LEAF, SECCOMP, (0, 0, 0, 0, 0, 0), 1): 1,
        Made(LEAF, READ, (0, 0, 0, 0, 0, 0), 0): 2,
    }
    assert story.calls.made(LEAF + 1) == {}


def test_children_are_the_tools_too_and_a_fork_is_one_call() -> None:
    story = confined(5)
    story.fork(5, 6)
    story.fork(6, 7)
    story.call(7, READ)
    assert story.made() == {(READ, 0): 2, (CLONE, 0): 2}


def test_a_number_given_again_is_another_thread() -> None:
    story = confined(5)
    story.fork(5, 6)
    story.call(6, READ)
    story.fork(9, 6)  # by somebody outside
    story.call(6, READ)
    assert story.made() == {(READ, 0): 2, (CLONE, 0): 1}


def test_a_thread_that_executes_takes_its_leaders_number() -> None:
    story = confined(5)
    story.fork(5, 6)
    story.begin(5, READ)
    story.begin(6, EXECVE)
    story.end(5, EXECVE)
    story.call(5, READ)
    assert story.made() == {(READ, 0): 3, (CLONE, 0): 1, (EXECVE, 0): 1}


def test_the_end_of_a_signal_handler_is_no_refused_call() -> None:
    story = confined(5)
    story.begin(5, SIGRETURN)
    story.end(5, -1, -4)
    story.end(5, -1, -4)
    assert story.made() == {(READ, 0): 1, (SIGRETURN, 0): 1}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_report_says_what_was_allowed_and_what_not(machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    names = {int(number): call for number, call in numbers.names(architecture).items()}
    number = {call: value for value, call in names.items()}
    rules = {
        number[call]: rule
        for call, rule in profile.load(POLICIES / "seccomp", "shell", machine).items()
        if call in number
    }
    blob = compile_profile(POLICIES / "seccomp", "shell", architecture)
    nothing: Arguments = (0,) * 6
    inet = None if machine == "aarch64" else 2  # of a refused call; AF_INET
    made = {
        Made(LEAF, number["read"], nothing, 0): 3,
        Made(LEAF, number["read"], nothing, 4): 1,  # its beginning was lost
        Made(LEAF, number["socket"], (1, 0, 0, 0, 0, 0), 0): 1,
        Made(LEAF, number["socket"], (inet, 0, 0, 0, 0, 0), 1): 2,
        Made(LEAF, number["pivot_root"], nothing, 1): 1,
        Made(LEAF, 999, nothing, 38): 1,
    }
    told = report("shell", made, 5, blob, rules, names, architecture)
    assert told.allowed == (
        Call(syscall="read", arguments={}, calls=4),
        Call(syscall="socket", arguments={"arg0": 1}, calls=1),
    )
    assert told.refused == (
        Refusal(syscall="999", arguments={}, calls=1, answer="ENOSYS"),
        Refusal(syscall="pivot_root", arguments={}, calls=1, answer="EPERM"),
        Refusal(syscall="socket", arguments={} if inet is None else {"arg0": inet}, calls=2, answer="EPERM"),
    )
    assert "write" in told.unused
    assert "read" not in told.unused
    assert told.lost == 5


SIZE = 2 * mmap.PAGESIZE
HEAD, TAIL = 1024, 1032


class Kernel:
    """The other side of an event's pages."""

    def __init__(self, at: int) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, mmap.PAGESIZE + SIZE)
        self._pages = mmap.mmap(self.fd, 0)
        self.head = at
        struct.pack_into("<QQ", self._pages, HEAD, at, at)

    def put(self, data: bytes) -> None:
        for value in data:
            self._pages[mmap.PAGESIZE + self.head % SIZE] = value
            self.head += 1
        struct.pack_into("<Q", self._pages, HEAD, self.head)

    @property
    def tail(self) -> int:
        (tail,) = struct.unpack_from("<Q", self._pages, TAIL)
        return int(tail)

    def close(self) -> None:
        self._pages.close()
        os.close(self.fd)


@pytest.mark.parametrize("at", [0, SIZE - 8, 5 * SIZE - 104, 2**40])
def test_a_ring_is_read_once_and_around_its_end(at: int) -> None:
    with closing(Kernel(at)) as kernel, closing(Ring(kernel.fd, SIZE)) as ring:
        assert ring.read() == b""
        for records in (ENTER + EXIT, FORK, ENTER * (SIZE // len(ENTER)), (EXIT * SIZE)[:SIZE]):
            kernel.put(records)
            assert ring.read() == records
            assert kernel.tail == kernel.head
            assert ring.read() == b""


def test_what_no_memory_is_behind_is_no_ring(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(Unwatchable, match="refuses"):
        Ring(fd, SIZE)
    os.close(fd)
