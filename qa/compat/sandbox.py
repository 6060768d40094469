"""The isolator on this machine, launcher and filters built from the sources: all fences but the cgroup's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.filters import load as load_filters
from clawos.isolator.launcher import Launcher, LinuxMachine
from clawos.isolator.planner import Planner
from clawos.isolator.queue import FairQueue
from clawos.isolator.seccomp.__main__ import compile_profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES
from clawos.isolator.service import Isolator

REPOSITORY = Path(__file__).parents[2]
_LAUNCHER = REPOSITORY / "services/src/clawos/isolator/launcher"
_QUOTAS = REPOSITORY / "policies/quotas.toml"
_PROFILES = ("python", "shell")
# Whom the calls work for; the sandbox's own user bears this name inside.
USER = pwd.getpwnam("games")


@dataclass(frozen=True)
class Ran:
    exit_code: int | None
    signal: int | None
    limit: str | None
    stdout: str
    stderr: str
    home: Path
    """What the program left in its home."""


class Sandbox:
    def __init__(self, directory: Path) -> None:
        """Build everything below `directory`, which other users must be able to enter."""
        launcher = directory / "claw-launch"
        subprocess.run(["make", "-s", "-C", _LAUNCHER, f"OUT={launcher}"], check=True)
        filters = directory / "filters"
        filters.mkdir()
        machine = ARCHITECTURES[os.uname().machine]
        for name in _PROFILES:
            blob = compile_profile(REPOSITORY / "policies/seccomp", name, machine)
            (filters / f"{name}.bpf").write_bytes(blob)
        self._directory, self._launcher, self._filters = directory, launcher, filters

    async def run(self, *argv: str, seccomp: str, quota: str = "large", **spec: Any) -> Ran:
        """Run a program to its end, in a home of its own."""
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self._directory))
        os.chmod(home, 0o711)
        config = Config(launcher=self._launcher, filters=self._filters, quotas=_QUOTAS, home=home)
        isolator = Isolator(
            Planner(config, quotas.load(config.quotas), load_filters(config.filters)),
            Launcher(config.launcher, None),
            LinuxMachine(None),
            FairQueue(1, 1, 1, user_running_max=1, user_queued_max=1),
            config.drain_s,
        )
        asked = {"tool": "qa.compat", "argv": argv, "seccomp": seccomp, "quota": quota, **spec}
        asked |= {"home": "write", "home_owner": USER.pw_uid}
        call = await isolator.run(json.dumps(asked), os.open(os.devnull, os.O_RDONLY), ":1.1")
        streams = (call.stdout, call.stderr, call.result)
        out, err, result = await asyncio.gather(*(asyncio.to_thread(_read, fd) for fd in streams))
        await isolator.close()
        ended = json.loads(result)
        return Ran(ended["exit_code"], ended["signal"], ended["limit"], out, err, home / str(USER.pw_uid))


def _read(fd: int) -> str:
    with os.fdopen(fd, "rb") as stream:
        return stream.read().decode(errors="replace")


@contextlib.asynccontextmanager
async def sandbox() -> AsyncIterator[Sandbox]:
    with tempfile.TemporaryDirectory(prefix="clawos-compat-") as made:
        os.chmod(made, 0o755)
        yield Sandbox(Path(made))
