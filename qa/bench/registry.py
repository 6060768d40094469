"""The agent's tool registry: 100 manifests loaded, looked up, and one changed file taken in. Prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "services" / "src"))

from clawos.agent.registry import Registry  # noqa: E402 # found through the path set above

TOOLS = 100
REPEAT = 15


def _best_and_median(measure: Callable[[], float]) -> dict[str, float]:
    runs = sorted(measure() for _ in range(REPEAT))
    return {"best": runs[0], "p50": runs[len(runs) // 2]}


def _write(directory: Path) -> Path:
    """As many tools as the target says, with the real ones as patterns: no two are the same text."""
    shipped = sorted((ROOT / "policies" / "tools").glob("*.toml"))
    for n in range(TOOLS):
        source = shipped[n % len(shipped)]
        text = source.read_text().replace(f'name = "{source.stem}"', f'name = "bench.t{n}"', 1)
        (directory / f"bench.t{n}.toml").write_text(text)
    return directory / "bench.t0.toml"


def _append(file: Path) -> None:
    with file.open("a") as f:
        f.write("\n# changed\n")


async def _notice_ms(registry: Registry, file: Path) -> float:
    """From a file's new text to the tool read from it."""
    follower = asyncio.create_task(registry.follow())
    await asyncio.sleep(0.05)  # it arms its watches at its first step
    before = registry.get(file.stem)
    started = time.perf_counter()
    _append(file)
    while registry.get(file.stem) is before:  # noqa: ASYNC110 # it tells nobody, it is asked
        await asyncio.sleep(0.001)
    elapsed = time.perf_counter() - started
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    return elapsed * 1e3


def measure() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        first = _write(directory)
        registry = Registry([directory])

        def load_ms() -> float:
            nonlocal registry
            registry = Registry([directory])
            started = time.perf_counter()
            registry.load()
            return (time.perf_counter() - started) * 1e3

        def lookup_us() -> float:
            started = time.perf_counter()
            for _ in range(10_000):
                registry.get("bench.t99")
            return (time.perf_counter() - started) * 1e2

        def unchanged_ms() -> float:
            started = time.perf_counter()
            registry.load()
            return (time.perf_counter() - started) * 1e3

        load = _best_and_median(load_ms)
        if len(registry) != TOOLS:
            raise SystemExit(f"only {len(registry)} of {TOOLS} tools were taken: {registry.invalid[:1]}")
        started = time.perf_counter()
        registry.get("bench.t0").check({})
        return {
            "tools": TOOLS,
            "load_ms": load,
            "lookup_us": _best_and_median(lookup_us),
            "look_again_unchanged_ms": _best_and_median(unchanged_ms),
            "first_check_ms": (time.perf_counter() - started) * 1e3,
            "change_noticed_ms": asyncio.run(_notice_ms(registry, first)),
        }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
