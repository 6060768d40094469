"""The ring buffer of BPF_MAP_TYPE_RINGBUF, read through its own pages: no library, no call for each record.

The kernel's layout: a page with the position up to which we have read, which is ours to write; a page with
the position up to which there are records; then the data, mapped twice in a row, so that a record that goes
round the end is in one piece. A record begins with its length, whose upper bits say that it is still being
written, or void.
"""

from __future__ import annotations

import mmap
import threading

_PAGE = mmap.PAGESIZE
_HEADER_BYTES = 8
_BUSY = 1 << 31
_DISCARDED = 1 << 30
_LENGTH = _DISCARDED - 1


class RingBroken(Exception):
    """The positions or lengths are none that the kernel writes."""


class Ring:
    """One reader's view of a ring; there is to be no other reader."""

    def __init__(self, fd: int, size: int) -> None:
        """`fd` of the map, open to write; `size` in bytes of its data, its max_entries. Raises OSError."""
        self._size = size
        self._ours = mmap.mmap(fd, _PAGE)
        self._theirs = mmap.mmap(fd, _PAGE + 2 * size, prot=mmap.PROT_READ, offset=_PAGE)
        # By views of whole numbers, which are loaded and stored in one piece; struct would go byte by byte.
        self._consumed = memoryview(self._ours).cast("Q")
        self._produced = memoryview(self._theirs)[:_HEADER_BYTES].cast("Q")
        self._lengths = memoryview(self._theirs)[_PAGE:].cast("I")
        self._barrier = threading.Lock()

    def close(self) -> None:
        for view in (self._consumed, self._produced, self._lengths):
            view.release()
        self._ours.close()
        self._theirs.close()

    @property
    def waiting_bytes(self) -> int:
        return self._produced[0] - self._consumed[0]

    def read(self, records_max: int) -> list[bytes]:
        """The next records, oldest first, copied; their place is free again on return. Raises RingBroken."""
        position, end = self._consumed[0], self._produced[0]
        mask = self._size - 1
        if not 0 <= end - position <= self._size or position % _HEADER_BYTES:
            raise RingBroken(f"read up to {position}, written up to {end}, of {self._size} bytes")
        self._order()
        found: list[tuple[int, int]] = []
        while position < end and len(found) < records_max:
            start = position & mask
            length = self._lengths[start >> 2]
            if length & _BUSY:
                break
            data = length & _LENGTH
            after = position + (data + 2 * _HEADER_BYTES - 1 & -_HEADER_BYTES)
            if after > end:
                raise RingBroken(f"a record of {data} bytes at {position}, written up to {end}")
            if not length & _DISCARDED:
                found.append((start + _PAGE + _HEADER_BYTES, data))
            position = after
        self._order()
        pages = self._theirs
        records = [pages[start : start + length] for start, length in found]
        self._order()
        self._consumed[0] = position
        return records

    def _order(self) -> None:
        """What is loaded and stored before this is so before what comes after, on any processor."""
        with self._barrier:
            pass
