"""`claw model`: list, add, use and remove models. The work is the inference service's; only root may ask
it."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from clawos.claw import output, services
from clawos.claw.services import Machine
from clawos.core.errors import ClawError

# A model of tens of gigabytes on a slow disk.
_ADD_TIMEOUT_S = 3600
_USE_TIMEOUT_S = 900


class FileUnreadable(ClawError):
    """The model's file cannot be opened."""

    name = "FileUnreadable"


def collect(machine: Machine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.ask(services.INFERENCE, "Models")
    return found


def show(models: list[dict[str, Any]]) -> None:
    rows = [
        [
            "*" if model["active"] else "",
            model["name"],
            output.size(model["size_bytes"]),
            model["dialect"] or "",
            "built in" if model["builtin"] else "added",
            model["error"] or "",
        ]
        for model in models
    ]
    output.print_table(["", "MODEL", "SIZE", "DIALECT", "FROM", "PROBLEM"], rows)


def add(machine: Machine, path: Path, name: str | None) -> str:
    """Copy a GGUF into the registry. Returns its name there. Raises ClawError."""
    name = name or path.stem
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FileUnreadable(f"{path}: {error.strerror}", "give the path of a .gguf file") from None
    try:
        with _Progress(f"adding {name} ({output.size(os.fstat(fd).st_size)})"):
            machine.tell(services.INFERENCE, "AddModel", name, fds=(fd,), timeout_s=_ADD_TIMEOUT_S)
    finally:
        os.close(fd)
    return name


def use(machine: Machine, name: str) -> None:
    with _Progress(f"loading {name}"):
        machine.tell(services.INFERENCE, "UseModel", name, timeout_s=_USE_TIMEOUT_S)


def remove(machine: Machine, name: str) -> None:
    machine.tell(services.INFERENCE, "RemoveModel", name, timeout_s=_USE_TIMEOUT_S)


class _Progress:
    """A line that shows that work goes on and for how long, on a terminal; nothing elsewhere.

    The service copies and tries the model out; how far it is only it knows, so what is shown is the time.
    """

    def __init__(self, what: str) -> None:
        self._what = output.harmless(what)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._shown = sys.stderr.isatty()

    def _run(self) -> None:
        start = time.monotonic()
        erase = os.environ.get("TERM", "dumb") != "dumb"
        if not erase:
            print(f"{self._what} ...", file=sys.stderr, flush=True)
        while not self._over.wait(1):
            if erase:
                print(
                    f"\r{self._what} ... {time.monotonic() - start:.0f} s",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
        if erase:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> None:
        if self._shown:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._shown:
            self._thread.join()
