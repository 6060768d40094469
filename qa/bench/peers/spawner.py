"""Drives `spawner.c`: one call of one arm when asked, or many at once."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from qa.bench.peers.arms import Arm

# What all arms start with; a peer that hands its environment on hands on no more than this.
_ENVIRONMENT = {"PATH": "/usr/bin:/usr/sbin", "HOME": "/tmp", "LANG": "C.UTF-8"}


class ArmFailed(Exception):
    """An arm's program did not end with 0: what it took says nothing."""


@dataclass(frozen=True)
class Spawned:
    wall_ms: float
    cpu_ms: float
    """Of all processes of the call; what the kernel and other daemons do for it is not in it."""


class Spawner:
    """One process of spawner.c."""

    def __init__(self, program: Path, arms: Sequence[Arm], scratch: Path) -> None:
        self._names = [arm.name for arm in arms]
        with tempfile.NamedTemporaryFile(dir=scratch, delete=False) as file:
            file.write(b"".join(word.encode() + b"\0" for arm in arms for word in (*arm.words, "@end")))
        self._process = subprocess.Popen(
            [program, file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_ENVIRONMENT, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, name: str, count: int = 1) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self._names.index(name)} {count}\n")
        self._process.stdin.flush()

    def answer(self, name: str) -> Spawned:
        """The next of the calls asked for. Raises ArmFailed."""
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if len(words) != 3:
            raise ArmFailed(f"{name}: the spawner ended; its words are above")
        if words[2] != "0":
            raise ArmFailed(f"{name}: wait status {words[2]}")
        return Spawned(int(words[0]) / 1e6, int(words[1]) / 1e3)

    def run(self, name: str) -> Spawned:
        self.ask(name)
        return self.answer(name)


def in_parallel(spawners: Sequence[Spawner], name: str, count: int) -> float:
    """`count` calls of an arm in each of the spawners at the same time; answers calls a second."""
    started = time.perf_counter()
    for spawner in spawners:
        spawner.ask(name, count)
    for spawner in spawners:
        for _ in range(count):
            spawner.answer(name)
    return round(len(spawners) * count / (time.perf_counter() - started), 1)
