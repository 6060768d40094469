"""Count the system calls of every sandbox below a cgroup while this context lasts."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clawos.isolator.learn import bpf, btf, program
from clawos.isolator.learn.bpf import Map, MapKind, Unwatchable

# A tool calls some hundred different (call, arguments) pairs; more are counted as lost, and reported.
_ENTRIES = 16384


@dataclass(frozen=True)
class Count:
    """How often one call was begun or left in one sandbox."""

    cgroup_id: int
    number: int
    place: int
    arguments: tuple[int, ...]
    times: int


class Watch:
    """What was counted so far."""

    def __init__(self, counts: Map, lost: Map) -> None:
        self._counts, self._lost = counts, lost

    def counts(self) -> list[Count]:
        found = []
        for key, value in self._counts.items():
            cgroup_id, number, place, *arguments = program.KEY.unpack(key)
            found.append(Count(cgroup_id, number, place, tuple(arguments), int.from_bytes(value, "little")))
        return found

    def lost(self) -> int:
        """Calls that found no room; 0 unless a tool calls with very many different arguments."""
        return int.from_bytes(self._lost[bytes(4)], "little")


@contextmanager
def watch(cgroup: Path, judged: Mapping[int, frozenset[int]]) -> Iterator[Watch]:
    """`judged`: number → positions of the arguments to tell apart. Raises Unwatchable."""
    base, level = _place(cgroup)
    registers = program.REGISTERS[platform.machine()]
    with ExitStack() as held:

        def made(kind: MapKind, key_bytes: int, value_bytes: int, entries: int) -> Map:
            one = Map(kind, key_bytes, value_bytes, entries)
            held.callback(one.close)
            return one

        arguments = made(MapKind.ARRAY, 4, 4, program.NUMBERS)
        counts = made(MapKind.HASH, program.KEY.size, 8, _ENTRIES)
        lost = made(MapKind.ARRAY, 4, 8, 1)
        for number, positions in judged.items():
            arguments[struct.pack("<I", number)] = struct.pack("<I", sum(1 << p for p in positions))
        maps = (arguments.fd, counts.fd, lost.fd)
        # What is under way at this moment is seen at its end only, as a refused call is: watch, then run.
        for tracepoint, place in (("sys_enter", program.ENTERED), ("sys_exit", program.LEFT)):
            code = program.assemble(place, base, level, maps, registers)
            loaded = bpf.load(code, btf.tracepoint(tracepoint), f"claw_{tracepoint}")
            held.callback(os.close, loaded)
            held.callback(os.close, bpf.attach(loaded))
        yield Watch(counts, lost)


def _place(cgroup: Path) -> tuple[int, int]:
    """A cgroup's id, and how far below the root of its hierarchy it lies."""
    try:
        number = cgroup.stat().st_ino
    except OSError as error:
        raise Unwatchable(f"{cgroup}: {error.strerror}", "does the isolator run?") from None
    level, at = 0, cgroup
    while (at.parent / "cgroup.procs").exists():
        level, at = level + 1, at.parent
    return number, level
