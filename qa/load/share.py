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
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"]
    subprocess.run(["musl-gcc", *flags, "-o", place / "offer", HERE / "offer.c"], check=True)
