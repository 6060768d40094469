"""CPython's own tests, for the guest to run: on the disk `share`, for the image has none of them."""

from __future__ import annotations

import shutil
from pathlib import Path

SUITE = Path("/usr/lib/python3.13/test")
PLACE = "lib/cpython"
"""Where they lie on the disk."""


def make(folder: Path) -> None:
    shutil.copytree(SUITE, folder / PLACE / "test", ignore=shutil.ignore_patterns("__pycache__"))
