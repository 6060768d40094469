"""Programs of this room that run apart, as they may die of what they read."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import clawos
from clawos.core import run


async def start(
    module: str, *arguments: str | Path, stdin: int = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """Start a module of this package in a process of its own."""
    # The same clawos that runs here, be it installed or a checkout.
    root = str(Path(clawos.__path__[0]).parent)
    return await run.spawn(
        [sys.executable, "-s", "-P", "-m", module, *arguments],
        stdin=stdin,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PYTHONPATH": root, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "GGML_NO_BACKTRACE": "1"},
    )


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill it, if it still runs, and collect it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()


def confine(*, data_bytes: int, cpu_s: int, file_bytes: int = 0) -> None:
    """In the child, before it reads anything: no core dumped, no more written or taken than this."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_DATA: data_bytes,
        resource.RLIMIT_CPU: cpu_s,
    }
    for limit, wanted in limits.items():
        _, hard = resource.getrlimit(limit)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (value, value))


@contextlib.contextmanager
def less_memory(data_bytes: int) -> Iterator[None]:
    """In the child: a smaller limit on memory for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (min(data_bytes, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
