"""A boot of the image in each lockdown mode, shared by the tests of the monitor's programs in it."""

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
from qa.vm.machine import Channel, Machine, Output, fresh_guest, harness_credentials
from qa.vm.qemu import Guest

LOCKDOWNS = (os.environ.get("LOCKDOWN") or "none integrity confidentiality").split()

Run = Callable[..., Output]
InCgroup = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session", params=LOCKDOWNS)
def lockdown(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


@pytest.fixture(scope="session")
def machine(lockdown: str) -> Iterator[Machine]:
    with fresh_guest(f"monitor-{lockdown}", IMAGE, lockdown=lockdown) as made:
        yield made


@pytest.fixture(scope="session")
def channel(machine: Machine) -> Channel:
    """The ring has one reader: the consumer is stopped."""
    made = machine.wait_for_channel()
    made.run("systemctl is-system-running --wait", 300)
    made.run("systemctl stop clawos-monitor")
    return made


def put(root: Run, path: str, text: str) -> None:
    assert root(f"mkdir -p $(dirname {path}); cat >{path} <<'END OF FILE'\n{text}\nEND OF FILE").status == 0


def push(root: Run, *names: str) -> None:
    """Programs of this folder, to be run in the guest."""
    for name in names:
        program = Path(__file__).with_name(f"{name}.py").read_text()
        put(root, f"/run/qa/monitor/{name}.py", program)


@pytest.fixture(scope="session")
def in_cgroup(root: Run) -> InCgroup:
    """Do acts outside and inside a sandbox's cgroup: name → (outside, inside, verdicts in the ring)."""
    push(root, "in_cgroup")

    def run(acts: dict[str, str], **arguments: object) -> dict[str, Any]:
        done = root(
            f"python3 -I /run/qa/monitor/in_cgroup.py {shlex.quote(json.dumps({'acts': acts, **arguments}))}"
        )
        assert done.status == 0, done.stderr.decode()
        told: dict[str, Any] = json.loads(done.text)
        return told

    return run


_NOT_LOADED = b"[Unit]\nConditionPathExists=/nonexistent\n"


@pytest.fixture(scope="session")
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
