"""Sizes of the image, and how long building it takes."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

IMAGE = Path("build/image")
# What mkosi itself keeps; the Python dependencies and llama.cpp are made once, before the first build.
MKOSI_CACHES = {"mkosi", "packages", "sandbox"}


def build(cache: Path) -> float:
    """Seconds of one build."""
    started = time.monotonic()
    subprocess.run(["image/build"], check=True, env=os.environ | {"CLAWOS_CACHE": str(cache)})
    return time.monotonic() - started


def measure() -> dict[str, object]:
    """Sizes in bytes. `cold_s`: all Debian packages fetched anew; `rebuild_s`: a Python file has changed."""
    warm = Path(os.environ["CLAWOS_CACHE"])
    with tempfile.TemporaryDirectory(dir="build") as name:
        for entry in warm.iterdir():
            if entry.name not in MKOSI_CACHES:
                Path(name, entry.name).symlink_to(entry)
        cold_s = build(Path(name).absolute())
    Path("services/src/clawos/core/names.py").touch()
    rebuild_s = build(warm)
    root = next(IMAGE.glob("clawos.root-*.raw")).stat().st_size
    tree = Path("build/stage/usr/share/clawos/models")
    models = sum(f.stat().st_size for f in tree.rglob("*.gguf"))
    return {
        "root_bytes": root,
        "models_bytes": models,
        "uki_bytes": (IMAGE / "clawos.efi").stat().st_size,
        "initrd_bytes": (IMAGE / "clawos.initrd").stat().st_size,
        "cold_s": round(cold_s, 1),
        "rebuild_s": round(rebuild_s, 1),
    }
