"""Calls that the machine refuses even root, by sysctl: how far they get is what tells inside from outside."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from qa.escape.conftest import Probed
from qa.escape.guest import OUTSIDE, PROBE, Guest, Run

TRACE = "/sys/kernel/tracing/instances/escape"
IO_URING = "/proc/sys/kernel/io_uring_disabled"


@pytest.fixture
def traced(root: Run) -> Iterator[None]:
    events = " && ".join(
        f"echo 1 >{TRACE}/events/syscalls/sys_enter_{call}/enable"
        for call in ("kexec_load", "kexec_file_load")
    )
    done = root(f"mkdir {TRACE} && {events}")
    assert done.status == 0, done.stderr
    yield
    root(f"rmdir {TRACE}")


@pytest.mark.parametrize("name", ["kexec_load", "kexec_file_load"])
def test_kexec_does_not_reach_the_kernel(guest: Guest, traced: None, name: str) -> None:
    """kernel.kexec_load_disabled=1 cannot be taken back, so the control is that the kernel sees the call."""
    tried = f"{PROBE} one {shlex.quote(name)}"
    assert guest.inside(tried).stdout.strip() == f'{{"{name}": "EPERM"}}'
    assert f"sys_{name}(" not in guest.root(f"cat {TRACE}/trace").text
    assert guest.root(tried).status == 0
    assert f"sys_{name}(" in guest.root(f"cat {TRACE}/trace").text, "positive control"


def test_io_uring_is_refused_whatever_the_sysctl_says(guest: Guest, probed: Probed) -> None:
    inside, outside = probed("calls")
    assert inside["io_uring_setup"] == outside["io_uring_setup"] == "EPERM", "kernel.io_uring_disabled=2"
    guest.root(f"echo 0 >{IO_URING}")
    try:
        tried = f"{PROBE} one io_uring_setup"
        assert guest.root(f"{OUTSIDE} {tried}").text.strip() == '{"io_uring_setup": "ok"}', "positive control"
        assert guest.inside(tried).stdout.strip() == '{"io_uring_setup": "EPERM"}'
    finally:
        guest.root(f"echo 2 >{IO_URING}")
