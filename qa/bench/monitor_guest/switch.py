"""The monitor loaded as at boot, but for its guard, and then attached or not, as one says."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from clawos.monitor import libbpf, load
from qa.monitor.load import bpf

LINKS = Path("/sys/fs/bpf/clawos/links")
# With it in force only process 1 may attach.
GUARDS = ("lsm/bpf",)


class Switch:
    """Off at first."""

    def __init__(self) -> None:
        attach = libbpf.Program.attach

        def attach_all_but_the_guard(program: libbpf.Program, pin: Path) -> None:
            if program.section not in GUARDS:
                attach(program, pin)

        setattr(libbpf.Program, "attach", attach_all_but_the_guard)  # noqa: B010 # not a name that mypy lets one set
        try:
            print(load.load(), file=sys.stderr)
        finally:
            setattr(libbpf.Program, "attach", attach)  # noqa: B010
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
