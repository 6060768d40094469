"""python -m qa.compat [MODULE…]: CPython's tests inside the profile `python`, all of them if none is named.

Prints each failure that python.toml does not expect, and what it expects that passed. Exit code 1: failures.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from qa.compat import python_suite
from qa.compat.python_suite import Expected, Outcome
from qa.compat.sandbox import Sandbox, sandbox


async def main(names: list[str]) -> int:
    wanted = python_suite.expected()
    modules = names or [m for m in python_suite.modules() if not wanted.skips(m)]
    started = time.monotonic()
    turns = asyncio.Semaphore(os.cpu_count() or 1)
    async with sandbox() as made:
        found = await asyncio.gather(*(_one(made, turns, module, wanted) for module in modules))
    passed = sum(len(outcome.passed) for outcome in found)
    failed = sum(len(outcome.failed) for outcome in found)
    wrong = sum(len(python_suite.unexpected(outcome, wanted)) for outcome in found)
    print(f"\n{len(found)} modules in {time.monotonic() - started:.0f} s: {passed} tests passed, ", end="")
    print(f"{failed - wrong} failed as expected, {wrong} otherwise")
    return int(wrong > 0)


async def _one(made: Sandbox, turns: asyncio.Semaphore, module: str, wanted: Expected) -> Outcome:
    async with turns:
        started = time.monotonic()
        outcome = await python_suite.run(made, module)
    for test, said in python_suite.unexpected(outcome, wanted).items():
        print(f"FAILED {test}: {said}", flush=True)
    for test in outcome.passed:
        if wanted.names(test):
            print(f"passed, though expected to fail: {test}", flush=True)
    if (took := time.monotonic() - started) > 60:
        print(f"{module} took {took:.0f} s", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
