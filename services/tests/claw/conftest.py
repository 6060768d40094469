"""claw as a process, against fakes of the three services on the private bus."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def services(bus_address: str) -> Iterator[None]:
    """All rooms as `fakes.py` plays them, each as the user that its bus policy wants."""
    processes = []
    for room in ("agent", "inference", "isolator", "monitor", "network"):
        uid = pwd.getpwnam(f"clawos-{room}").pw_uid
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fakes.py"), bus_address, room, str(uid)],
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        processes.append(process)
    yield
    for process in processes:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def claw(bus_address: str) -> Run:
    """Run claw through pipes: `claw("model", "list", "--json")`; `uid=` runs it as another user."""

    def run(*arguments: str, uid: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        # The sources may stand below a directory that only root may enter: become the user when they are
        # loaded.
        program = (
            "import os, sys;"
            "from clawos.claw import doctor, events, main, model, output, sandbox, services, session;"
            "from clawos.claw import status, tools, top;"
            f"uid = {uid}; uid and (os.setgroups([]), os.setgid(uid), os.setuid(uid));"
            "raise SystemExit(main.main())"
        )
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCES), "LANG": "C.UTF-8", "TERM": "dumb"}
        environment |= {"DBUS_SYSTEM_BUS_ADDRESS": bus_address} | more
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
