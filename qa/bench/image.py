"""Sizes of the image, and how long building it takes."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

IMAGE = Path("build/image")


def measure() -> dict[str, object]:
    """Sizes in bytes. `rebuild_s`: after a change to one Python file, caches warm."""
    Path("services/src/clawos/core/names.py").touch()
    started = time.monotonic()
    subprocess.run(["image/build"], check=True)
    rebuild_s = time.monotonic() - started
    root = next(IMAGE.glob("clawos.root-*.raw")).stat().st_size
    tree = Path("build/stage/usr/share/clawos/models")
    models = sum(f.stat().st_size for f in tree.rglob("*.gguf"))
    return {
        "root_bytes": root,
        "models_bytes": models,
        "uki_bytes": (IMAGE / "clawos.efi").stat().st_size,
        "initrd_bytes": (IMAGE / "clawos.initrd").stat().st_size,
        "rebuild_s": round(rebuild_s, 1),
    }
