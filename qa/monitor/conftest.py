"""A boot of the image in each lockdown mode, shared by the tests of the monitor's programs in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qa.vm.machine import Output, fresh_guest

IMAGE = Path(os.environ.get("IMAGE") or "build/image/clawos.raw")
LOCKDOWNS = (os.environ.get("LOCKDOWN") or "none integrity confidentiality").split()


@pytest.fixture(scope="session", params=LOCKDOWNS)
def lockdown(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


@pytest.fixture(scope="session")
def root(lockdown: str) -> Iterator[Callable[..., Output]]:
    """Run a shell command line as root in the guest. The ring has one reader: the consumer is stopped."""
    with fresh_guest(f"monitor-{lockdown}", IMAGE, lockdown=lockdown) as machine:
        channel = machine.wait_for_channel()
        channel.run("systemctl is-system-running --wait", 300)
        channel.run("systemctl stop clawos-monitor")
        yield channel.run
