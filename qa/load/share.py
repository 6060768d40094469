"""What the guest gets to offer events with: on the disk `share`, for the image has none of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path("qa/load")
PLACE = "lib/load"
"""Where it lies on the disk."""


def make(folder: Path) -> None:
    place = folder / PLACE
    shutil.copytree(HERE, place / HERE, ignore=shutil.ignore_patterns("__pycache__", "*.c"))
    (place / "qa/__init__.py").touch()
    compiled(HERE / "offer.c", place / "offer")


def compiled(source: Path, program: Path) -> None:
    """Static: the guest has no libraries for it. The kernel's headers lie behind those of musl."""
    machine = subprocess.check_output(["gcc", "-dumpmachine"], text=True).strip()
    headers = ["-I", str(HERE), "-idirafter", "/usr/include", "-idirafter", f"/usr/include/{machine}"]
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"]
    subprocess.run(["musl-gcc", *flags, *headers, "-o", program, source], check=True)
