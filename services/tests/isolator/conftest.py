"""What the isolator's tests share: launcher and filters, built as the image builds them, and a way to run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from clawos.isolator import backend as backends
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.filters import load as load_filters
from clawos.isolator.launcher import Launcher, LinuxMachine
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Sandbox
from clawos.isolator.python.zygote import WithZygote
from clawos.isolator.queue import FairQueue
from clawos.isolator.seccomp.__main__ import compile_profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES
from clawos.isolator.seccomp.numbers import names
from clawos.isolator.service import Handle, Isolator

SERVICES = Path(__file__).parents[2]
ISOLATOR = SERVICES / "src" / "clawos" / "isolator"
POLICIES = SERVICES.parent / "policies"
PROFILES = ("python", "python-egress", "shell", "shell-egress", "wasm")
BACKENDS = ("launcher", "bubblewrap")


@pytest.fixture(scope="session")
def launcher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("launcher") / "claw-launch"
    subprocess.run(["make", "-s", "-C", ISOLATOR / "launcher", f"OUT={path}"], check=True)
    return path


@pytest.fixture(scope="session")
def zygote_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zygote") / "claw-python.so"
    subprocess.run(["make", "-s", "-C", ISOLATOR / "launcher", "python", f"PYTHON_OUT={path}"], check=True)
    return path


@pytest.fixture(scope="session")
def confine_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("confine") / "claw-confine"
    subprocess.run(["make", "-s", "-C", ISOLATOR / "confine", f"OUT={path}"], check=True)
    return path


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Whatever starts real sandboxes runs over both."""
    name: str = request.param
    return name


by_launcher = pytest.mark.parametrize("backend", ["launcher"], indirect=True)
"""How this one backend works inside."""


@pytest.fixture(scope="session")
def filters_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("seccomp")
    for name in PROFILES:
        blob = compile_profile(POLICIES / "seccomp", name, ARCHITECTURES["x86_64"])
        (directory / f"{name}.bpf").write_bytes(blob)
    (directory / "syscalls.json").write_text(json.dumps(names(ARCHITECTURES["x86_64"])))
    directory.chmod(0o755)
    return directory


@pytest.fixture
def config(
    launcher_path: Path, zygote_path: Path, confine_path: Path, filters_path: Path, tmp_path: Path
) -> Config:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    return Config(
        launcher=launcher_path,
        zygote=zygote_path,
        confine=confine_path,
        filters=filters_path,
        quotas=POLICIES / "quotas.toml",
        home=tmp_path / "home",
        running_max=4,
        user_running_max=4,
        queued_max=4,
        queue_wait_s=5,
    )


@pytest.fixture
def planner(config: Config) -> Planner:
    return Planner(config, quotas.load(config.quotas), load_filters(config.filters))


@pytest.fixture
async def sandbox(config: Config, backend: str) -> AsyncIterator[Sandbox]:
    """The real thing but for cgroup limits, which this machine has no controllers for."""
    made = await backends.choose(msgspec.structs.replace(config, backend=backend), None)
    yield made
    await made.close()


@pytest.fixture
def isolator(config: Config, planner: Planner, sandbox: Sandbox, backend: str) -> Isolator:
    return Isolator(planner, sandbox, LinuxMachine(None, backend), queue_of(config), config.drain_s)


@pytest.fixture
def launcher(sandbox: Sandbox) -> Launcher:
    """For tests that are marked `by_launcher`."""
    assert isinstance(sandbox, WithZygote)
    return sandbox.launcher


def queue_of(config: Config) -> FairQueue:
    return FairQueue(
        config.running_max,
        config.queued_max,
        config.queue_wait_s,
        user_running_max=config.running_by_user,
        user_queued_max=config.user_queued_max,
    )


@pytest.fixture
def real_base() -> Iterator[Path]:
    """A real cgroup v2, without controllers: enough for starting in it, killing and removing it."""
    for mount in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (mount / "cgroup.procs").exists() and os.access(mount, os.W_OK):
            base = mount / f"clawos-test-{os.getpid()}"
            base.mkdir()
            yield base
            for directory, _, _ in os.walk(base, topdown=False):
                Path(directory).rmdir()
            return
    pytest.skip("no writable cgroup v2 on this machine")


@dataclass(frozen=True)
class Ran:
    stdout: str
    stderr: str
    result: dict[str, Any]

    @property
    def exit_code(self) -> int | None:
        code: int | None = self.result["exit_code"]
        return code


class Run(Protocol):
    def __call__(self, *argv: str, **spec: Any) -> Awaitable[Ran]: ...


def spec_text(*argv: str, **spec: Any) -> str:
    return json.dumps({"tool": "test.tool", "argv": argv, **spec})


def read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as f:
        return f.read()


async def finish(call: Handle) -> Ran:
    out, err, result = await asyncio.gather(
        *(asyncio.to_thread(read_all, fd) for fd in (call.stdout, call.stderr, call.result))
    )
    return Ran(out.decode(), err.decode(), json.loads(result))


@pytest.fixture
def run(isolator: Isolator) -> Run:
    """Run a program in a sandbox to its end: `await run("/usr/bin/true", seccomp="python")`."""

    async def _run(*argv: str, **spec: Any) -> Ran:
        stdin = os.open(os.devnull, os.O_RDONLY)
        return await finish(await isolator.run(spec_text(*argv, **spec), stdin, ":1.1"))

    return _run


@pytest.fixture
def sh(run: Run) -> Callable[..., Awaitable[Ran]]:
    async def _sh(script: str, **spec: Any) -> Ran:
        return await run("/bin/sh", "-c", script, **spec)

    return _sh
