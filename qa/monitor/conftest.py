"""The image in each lockdown mode; LOCKDOWN=… for one alone."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qa.conftest import IMAGE
from qa.vm.machine import Machine, Output, fresh_guest, harness_credentials
from qa.vm.qemu import Guest

MODES = [os.environ["LOCKDOWN"]] if os.environ.get("LOCKDOWN") else ["none", "integrity", "confidentiality"]

Run = Callable[..., Output]
InCgroup = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session", params=MODES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with fresh_guest(f"monitor-{request.param}", IMAGE, lockdown=request.param) as made:
        yield made


def put(root: Run, path: str, text: str) -> None:
    assert root(f"cat >{path} <<'END OF FILE'\n{text}\nEND OF FILE").status == 0


@pytest.fixture(scope="session")
def in_cgroup(root: Run) -> InCgroup:
    """Do acts outside and inside a sandbox's cgroup: name → (outside, inside, verdicts in the ring)."""
    put(root, "/run/in_cgroup.py", Path(__file__).with_name("in_cgroup.py").read_text())
    root("systemctl stop clawos-monitor")  # the ring has one reader

    def run(acts: dict[str, str], **arguments: object) -> dict[str, Any]:
        done = root(f"python3 -I /run/in_cgroup.py {shlex.quote(json.dumps({'acts': acts, **arguments}))}")
        assert done.status == 0, done.stderr.decode()
        told: dict[str, Any] = json.loads(done.text)
        return told

    return run


_NOT_LOADED = b"[Unit]\nConditionPathExists=/nonexistent\n"


@pytest.fixture(scope="module")
def unarmed() -> Iterator[Run]:
    """Root on a boot without the monitor, where nobody guards bpf(2)."""
    directory = Path("build/vm/monitor-unarmed").absolute()
    credentials = {"systemd.unit-dropin.clawos-monitor-load.service": _NOT_LOADED} | harness_credentials()
    machine = Machine(Guest(directory, IMAGE, credentials))
    machine.stop(timeout_s=1)
    shutil.rmtree(directory, ignore_errors=True)
    machine.start()
    try:
        yield machine.wait_for_channel().run
    finally:
        machine.stop()
