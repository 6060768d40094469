"""What /proc says of a process that was there before we were, or whose beginning was lost.

An unprivileged reader is not shown the program of others' processes; their command line and parents he is.
"""

from __future__ import annotations

from pathlib import Path

from clawos.monitor.tree import LINEAGE_MAX

_PARENT = 1
"""Of the fields of stat behind the name, which may hold anything but ends with the last bracket."""
_SEARCHED = ("/usr/bin", "/usr/sbin", "/usr/lib/systemd")


class ProcLook:
    """`ports.Look`."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._real: dict[str, str] = {}

    def __call__(self, pid: int) -> tuple[str, tuple[str, ...]] | None:
        exe = self._exe(pid)
        if exe is None:
            return None
        lineage: list[str] = []
        while len(lineage) < LINEAGE_MAX and (pid := self._parent(pid)) > 0:
            lineage.append(self._exe(pid) or "")
        return exe, tuple(lineage)

    def _exe(self, pid: int) -> str | None:
        try:
            return str((self._proc / str(pid) / "exe").readlink())
        except PermissionError:
            pass
        except OSError:
            return None
        try:
            first = (self._proc / str(pid) / "cmdline").read_bytes().split(b"\0", 1)[0]
        except OSError:
            return None
        # A login shell's begins with "-"; some services write what they do behind their name.
        return self._program(first.decode(errors="replace").lstrip("-").split(": ", 1)[0].strip())

    def _program(self, name: str) -> str:
        if name not in self._real:
            if len(self._real) > 1024:
                self._real.clear()
            paths = [name] if name.startswith("/") else [f"{place}/{name}" for place in _SEARCHED if name]
            self._real[name] = next((str(p.resolve()) for p in map(Path, paths) if p.exists()), "")
        return self._real[name]

    def _parent(self, pid: int) -> int:
        try:
            text = (self._proc / str(pid) / "stat").read_text(errors="replace")
            return int(text.rpartition(")")[2].split()[_PARENT])
        except (OSError, ValueError, IndexError):
            return 0
