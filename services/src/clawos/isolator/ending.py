"""How a sandbox ended: what both backends make of its last words and of its cgroup."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

from clawos.isolator.cgroup import Leaf, Spent
from clawos.isolator.ports import Outcome
from clawos.isolator.wire import Exited, Report, Usage

LastWords = tuple[Exited | None, Usage | None]


async def last_words(next_report: Callable[[], Awaitable[Report | None]]) -> LastWords:
    """Read reports to their end. Raises ValueError for what is none."""
    exited: Exited | None = None
    usage: Usage | None = None
    while (report := await next_report()) is not None:
        if isinstance(report, Exited):
            exited = report
        elif isinstance(report, Usage):
            usage = report
    return exited, usage


def outcome(
    words: LastWords, spent: Spent | None, leaf: Leaf | None, landlock_abi: int, *, out_of_time: bool
) -> Outcome:
    exited, usage = words
    # Without a word from the sandbox's init it was killed as a whole: by a limit, by us, by the kernel.
    status = exited.wait_status if exited else int(signal.SIGKILL)
    return Outcome(
        exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        out_of_time=out_of_time,
        out_of_memory=spent.out_of_memory if spent else False,
        out_of_pids=spent.out_of_pids if spent else False,
        cpu_s=spent.cpu_s if spent else usage.cpu_s if usage else 0.0,
        peak_memory_bytes=spent.peak_memory_bytes if spent else usage.peak_bytes if usage else 0,
        peak_pids=spent.peak_pids if spent else 0,
        landlock_abi=landlock_abi,
        cgroup_id=leaf.id if leaf else 0,
    )


async def settle(leaf: Leaf | None, gone: Callable[[], None]) -> Spent | None:
    """What was spent; then nothing is left, which `gone` is told."""
    try:
        if leaf is None:
            return None
        try:
            return leaf.spent()
        finally:
            await leaf.remove()
    finally:
        gone()
