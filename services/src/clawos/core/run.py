"""The one door to processes. Unit tests keep it shut and open it by name (see tests/conftest.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clawos.core.errors import ClawError


class CommandFailed(ClawError):
    """A program that we depend on failed; its words are in the message."""

    name = "CommandFailed"


@dataclass(frozen=True)
class Completed:
    returncode: int
    stdout: bytes
    stderr: bytes


async def spawn(
    argv: Sequence[str | Path],
    *,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Start a program; the caller owns it. No shell, nothing inherited but what is named."""
    return await asyncio.create_subprocess_exec(
        *argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, pass_fds=pass_fds
    )


async def run(argv: Sequence[str | Path], *, timeout_s: float, check: bool = True) -> Completed:
    """Run a program to its end. Raises CommandFailed on a non-zero exit (if `check`) or at the deadline."""
    process = await spawn(argv)
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CommandFailed(f"{argv[0]} did not finish within {timeout_s:g} s") from None
    assert process.returncode is not None
    if check and process.returncode != 0:
        words = stderr.decode(errors="replace").strip() or f"exit status {process.returncode}"
        raise CommandFailed(f"{argv[0]}: {words}")
    return Completed(process.returncode, stdout, stderr)
