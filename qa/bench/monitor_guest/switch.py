"""The monitor loaded as at boot, but for the arming of its guard, and then attached or not, as one says."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

from clawos.monitor import load, protect
from clawos.monitor.libbpf import Map
from qa.load import bpf

LINKS = Path("/sys/fs/bpf/clawos/links")


class Switch:
    """Off at first."""

    def __init__(self) -> None:
        def leave_unarmed(guard: Map, guard_maps: Map, ours: Iterable[Map], pins: Path) -> None:
            """Armed, only process 1 may attach. The guard's programs run nevertheless."""

        def let_go(links: list[int]) -> bool:
            """Held by nobody else, a link ends with its pin."""
            for link in links:
                os.close(link)
            return False

        with mock.patch.multiple(protect, arm=leave_unarmed, hold=let_go):
            print(load.load(), file=sys.stderr)
        self.programs: dict[str, int] = {}
        for pin in sorted(LINKS.iterdir()):
            link = bpf.open_pin(pin)
            self.programs[pin.name] = bpf.program_of_link(link)
            os.close(link)
            pin.unlink()
        self._links: list[int] = []

    def set(self, on: bool) -> None:
        if on and not self._links:
            self._links = [bpf.attach(program) for program in self.programs.values()]
        elif not on:
            while self._links:
                os.close(self._links.pop())
        time.sleep(0.2)  # what is detached is freed behind one's back

    @property
    def is_on(self) -> bool:
        return bool(self._links)
