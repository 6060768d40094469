"""What the consumer takes in, and at what cost to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qa.load.__main__ import main as load

RATES = (1000, 3000, 10_000, 30_000, 100_000, 0)
SECONDS = 10


def consumer(tools: Path, followed: Path, beside: Path) -> list[dict[str, Any]]:
    """One row a rate; 0 is as fast as it goes."""
    return [_row(tools, followed, beside, rate) for rate in RATES]


def _row(tools: Path, followed: Path, beside: Path, rate: int) -> dict[str, Any]:
    words = (str(tools / "offer"), str(followed), str(beside), "open", str(rate), str(SECONDS), "2")
    told: Any = load(*words)
    handed, lost, limited = (told["kinds"]["open"][what] for what in ("handed", "lost", "limited"))
    return {
        "asked_per_s": rate or "flat out",
        "offered_per_s": round(told["offered"] / told["seconds"]),
        "offered": told["offered"],
        "handed_over": handed,
        "lost": lost,
        "limited": limited,
        "unaccounted": told["offered"] - handed - lost - limited,
        "lost_percent": round((lost + limited) / told["offered"] * 100, 3),
        "cpu_us_each": round(told["cpu_s"] / handed * 1e6, 2) if handed else "",
        "cpu_share": round(told["cpu_s"] / told["seconds"], 3),
        "peak_rss_mib": told["peak_rss_mib"],
    }
