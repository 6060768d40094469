"""Count the system calls of every sandbox below a cgroup while this context lasts."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clawos.isolator.cgroup import SUPERVISOR
from clawos.isolator.learn import bpf, program
from clawos.isolator.learn.bpf import Map, MapKind, Unwatchable
from clawos.isolator.learn.btf import Btf
from clawos.isolator.learn.program import Guests, Maps

# A tool makes some hundred different (call, arguments) pairs; more are counted as lost, and reported.
_ENTRIES = 16384


@dataclass(frozen=True)
class Count:
    """How often one call began or ended in one sandbox."""

    cgroup_id: int
    number: int
    end: int
    arguments: tuple[int, ...]
    times: int


class Watch:
    """What was counted so far."""

    def __init__(self, counts: Map, lost: Map) -> None:
        self._counts, self._lost = counts, lost

    def counts(self, cgroup_id: int) -> list[Count]:
        """Of one sandbox."""
        found = []
        for key, value in self._counts.items():
            owner, number, end, *arguments = program.KEY.unpack(key)
            if owner == cgroup_id:
                found.append(Count(owner, number, end, tuple(arguments), int.from_bytes(value, "little")))
        return found

    def lost(self) -> int:
        """Calls that found no room; 0 unless a tool calls with very many different arguments."""
        return int.from_bytes(self._lost[bytes(4)], "little")


@contextmanager
def watch(cgroup: Path, judged: Mapping[int, frozenset[int]]) -> Iterator[Watch]:
    """`judged`: number → positions of the arguments to tell apart. Raises Unwatchable."""
    btf, machine = Btf(), program.MACHINES[platform.machine()]
    guests = _guests(cgroup, btf)
    with ExitStack() as held:

        def made(kind: MapKind, key_bytes: int, value_bytes: int, entries: int) -> Map:
            one = Map(kind, key_bytes, value_bytes, entries)
            held.callback(one.close)
            return one

        positions = made(MapKind.ARRAY, 4, 4, program.NUMBERS)
        counts = made(MapKind.HASH, program.KEY.size, 8, _ENTRIES)
        lost = made(MapKind.ARRAY, 4, 8, 1)
        for number, asked in judged.items():
            positions[struct.pack("<I", number)] = struct.pack("<I", sum(1 << p for p in asked))
        maps = Maps(positions.fd, counts.fd, lost.fd)
        # A call that is under way now is seen at its end only, as a refused one is: first watch, then run.
        for tracepoint, end in (("sys_enter", program.BEGAN), ("sys_exit", program.ENDED)):
            code = program.assemble(end, guests, maps, machine)
            loaded = bpf.load(code, btf.tracepoint(tracepoint), f"claw_{tracepoint}")
            held.callback(os.close, loaded)
            held.callback(os.close, bpf.attach(loaded))
        yield Watch(counts, lost)


def _guests(cgroup: Path, btf: Btf) -> Guests:
    try:
        cgroup_id = cgroup.stat().st_ino
        inherited = _filters(cgroup / SUPERVISOR)
    except OSError as error:
        raise Unwatchable(f"{cgroup}: {error.strerror}", "does the isolator run?") from None
    level, at = 0, cgroup
    while (at.parent / "cgroup.procs").exists():
        level, at = level + 1, at.parent
    return Guests(cgroup_id, level, btf.offset("task_struct", "seccomp", "filter_count"), inherited)


def _filters(supervisor: Path) -> int:
    """How many seccomp filters the service runs under, which systemd gave it and sandboxes inherit."""
    members = (supervisor / "cgroup.procs").read_text().split() if supervisor.exists() else ["self"]
    status = Path("/proc", members[0], "status").read_text()
    found = [line.split()[1] for line in status.splitlines() if line.startswith("Seccomp_filters:")]
    return int(found[0])
