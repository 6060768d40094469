"""The ring's reader, against a kernel's side written here: same pages, same headers, no kernel."""

from __future__ import annotations

import mmap
import os
import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawos.monitor.ring import Ring, RingBroken

SIZE = 4 * mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Kernel:
    """Writes as ringbuf.c does. The data are in the file once and, as the kernel's pages, mapped twice."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * mmap.PAGESIZE + 2 * SIZE)
        self._pages = mmap.mmap(self.fd, 0)
        self.produced = 0

    def close(self) -> None:
        self._pages.close()
        os.close(self.fd)

    @property
    def consumed(self) -> int:
        position: int = struct.unpack_from("=Q", self._pages, 0)[0]
        return position

    @consumed.setter
    def consumed(self, position: int) -> None:
        struct.pack_into("=Q", self._pages, 0, position)

    def start_at(self, position: int) -> None:
        self.consumed = self.produced = position
        self._publish()

    def put(self, data: bytes, flags: int = 0) -> int | None:
        """Where its header stands; None where there is no room."""
        taken = len(data) + 15 & ~7
        if self.produced + taken - self.consumed > SIZE:
            return None
        at = self.produced % SIZE
        self._write(at, struct.pack("=II", len(data) | flags, 0) + data)
        self.produced += taken
        self._publish()
        return at

    def commit(self, at: int, flags: int = 0) -> None:
        (length,) = struct.unpack_from("=I", self._pages, 2 * mmap.PAGESIZE + at)
        self._write(at, struct.pack("=I", length & ~BUSY | flags))

    def lie(self, at: int, length: int) -> None:
        self._write(at, struct.pack("=I", length))

    def _write(self, at: int, data: bytes) -> None:
        for offset, byte in enumerate(data):
            place = 2 * mmap.PAGESIZE + (at + offset) % SIZE
            self._pages[place] = byte
            self._pages[place + SIZE] = byte

    def _publish(self) -> None:
        struct.pack_into("=Q", self._pages, mmap.PAGESIZE, self.produced)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


@pytest.fixture
def ring(kernel: Kernel) -> Iterator[Ring]:
    made = Ring(kernel.fd, SIZE)
    yield made
    made.close()


def test_records_come_in_order_and_give_their_room_back(kernel: Kernel, ring: Ring) -> None:
    kernel.put(b"first")
    kernel.put(b"")
    kernel.put(b"third" * 9)
    assert ring.waiting_bytes == 16 + 8 + 56
    assert ring.read(2) == [b"first", b""]
    assert kernel.consumed == 24
    assert ring.read(9) == [b"third" * 9]
    assert ring.read(9) == []
    assert ring.waiting_bytes == 0


def test_one_that_is_being_written_holds_back_those_behind_it(kernel: Kernel, ring: Ring) -> None:
    kernel.put(b"before")
    at = kernel.put(b"slow", BUSY)
    kernel.put(b"behind")
    assert at is not None
    assert ring.read(9) == [b"before"]
    assert ring.read(9) == []
    kernel.commit(at)
    assert ring.read(9) == [b"slow", b"behind"]


def test_a_void_one_is_passed_over(kernel: Kernel, ring: Ring) -> None:
    kernel.put(b"void", DISCARDED)
    kernel.put(b"good")
    kernel.put(b"void", DISCARDED)
    assert ring.read(9) == [b"good"]
    assert kernel.consumed == kernel.produced


def test_one_round_the_end_is_whole(kernel: Kernel, ring: Ring) -> None:
    kernel.start_at(7 * SIZE - 16)
    kernel.put(b"round the end of the ring")
    assert ring.read(9) == [b"round the end of the ring"]


def test_a_full_ring_is_read_to_its_end(kernel: Kernel, ring: Ring) -> None:
    kernel.start_at(3 * SIZE + 8 * 5)
    count = 0
    while kernel.put(b"x" * 24) is not None:
        count += 1
    assert count == SIZE // 32
    assert ring.read(10 * count) == [b"x" * 24] * count


@given(st.randoms(use_true_random=False))
def test_whatever_is_written_is_read(dice: random.Random) -> None:
    """Writes and reads of any size, in any order, some void, some late."""
    kernel = Kernel()
    ring = Ring(kernel.fd, SIZE)
    kernel.start_at(dice.randrange(0, 10 * SIZE, 8))
    written: list[bytes] = []
    read: list[bytes] = []
    for _ in range(60):
        if dice.random() < 0.5:
            data = dice.randbytes(dice.choice((0, 1, 7, 8, 88, dice.randrange(3000))))
            how = dice.choice((0, 0, 0, DISCARDED, BUSY))
            at = kernel.put(data, how)
            if at is not None and how == BUSY:
                assert ring.read(0) == []
                kernel.commit(at)
            if at is not None and how != DISCARDED:
                written.append(data)
        else:
            read += ring.read(dice.randrange(1, 5))
    read += ring.read(1000)
    assert read == written
    assert kernel.consumed == kernel.produced
    ring.close()
    kernel.close()


@pytest.mark.parametrize("length", [0x3FFFFFFF, SIZE, 64])
def test_a_length_that_leads_out_is_an_error(kernel: Kernel, ring: Ring, length: int) -> None:
    at = kernel.put(b"good")
    assert at is not None
    kernel.lie(at, length)
    with pytest.raises(RingBroken):
        ring.read(9)


@pytest.mark.parametrize(("consumed", "produced"), [(8, 0), (0, SIZE + 8), (4, 16)])
def test_impossible_positions_are_an_error(kernel: Kernel, ring: Ring, consumed: int, produced: int) -> None:
    kernel.start_at(produced)
    kernel.consumed = consumed
    with pytest.raises(RingBroken):
        ring.read(9)
