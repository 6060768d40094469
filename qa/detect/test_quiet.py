"""No alert of high severity for anything ordinary: a boot, CPython's own tests, a build, a session."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from math import inf

from qa.compat import python_suite
from qa.conftest import Call, tool_calls
from qa.detect import ordinary
from qa.detect import share as cpython
from qa.detect.guest import Run, alerts, boot_ns, counted
from qa.vm.machine import Channel

SESSION_S = float(os.environ.get("QA_SESSION_S") or 90)
"""Half an hour in `make test-full`."""
CPYTHON = os.environ.get("QA_CPYTHON") or "test_os test_subprocess test_tempfile test_socket"
"""Modules of its tests; `all` in `make test-full`."""


def serious(root: Run, since_ns: int, until_ns: float = inf) -> list[str]:
    """What the monitor holds for serious in that time: none of it is."""
    found = [one for one in alerts(root, "high") if since_ns <= one.time_ns < until_ns]
    return [f"{one.rule}: {one.message}" for one in found]


def test_a_boot_is_quiet(root: Run) -> None:
    seen = counted(root)
    assert seen.get("exec", 0) > 5, f"positive control: what comes after its own start: {seen}"
    up_us = int(root("systemctl show -P FinishTimestampMonotonic").text)
    assert up_us > 0
    assert serious(root, 0, up_us * 1000) == []


def test_cpythons_own_tests_are_quiet(root: Run, channel: Channel) -> None:
    root("mountpoint -q /usr/local || mount -t erofs -o ro,nosuid,nodev /dev/disk/by-label/share /usr/local")
    root("systemctl restart clawos-isolator")
    before, since = counted(root), boot_ns(root)
    call = tool_calls(channel, quota="large", seccomp="python")
    try:
        for module in python_suite.modules() if CPYTHON == "all" else CPYTHON.split():
            ran = call(
                "shell.run",
                command=f"PYTHONPATH=/usr/local/{cpython.PLACE} python3 -m test {module} 2>&1 | tail -n 5",
            )
            assert "run=" in ran.stdout or "Total tests" in ran.stdout, f"positive control: {ran}"
    finally:
        root("umount /usr/local; systemctl restart clawos-isolator")
    assert counted(root).get("open", 0) - before.get("open", 0) > 100, "positive control"
    assert serious(root, since) == []


def test_a_build_is_quiet(root: Run, channel: Channel) -> None:
    since = boot_ns(root)
    ran = tool_calls(channel, quota="large")("shell.run", command=ordinary.BUILD)
    assert ran.stdout.endswith("built\n"), ran
    done = root(f"sh -c {shlex.quote(ordinary.BUILD)}")
    assert done.text.endswith("built\n"), done.stderr
    assert serious(root, since) == []


def test_a_session_is_quiet(root: Run, user: Callable[..., object], call: Call) -> None:
    since, deadline = boot_ns(root), time.monotonic() + SESSION_S
    before = counted(root).get("exec", 0)
    said = 0
    while not said or time.monotonic() < deadline:
        request = ordinary.REQUESTS[said % len(ordinary.REQUESTS)]
        user("-c", request)
        tool, arguments = ordinary.CALLS[said % len(ordinary.CALLS)]
        ran = call(tool, arguments)
        assert not ran.refused, (tool, ran)
        said += 1
    assert counted(root).get("exec", 0) - before > said, "positive control"
    assert serious(root, since) == []
