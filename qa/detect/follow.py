"""A cgroup of the guest's that the monitor follows beside sandboxes: by its settings, as they are at boot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clawos.monitor.kinds import EVERYWHERE, Kind
from qa.vm.machine import Output

CGROUPS = "/sys/fs/cgroup"
PARENT = "/qa"
_BY_USER_SPACE = {Kind.ANOMALY, Kind.LOST}
_KINDS = ", ".join(f'"{kind.word}"' for kind in Kind if kind not in EVERYWHERE | _BY_USER_SPACE)
_SETTINGS = f'[[follow]]\\ncgroup = "{PARENT}"\\nkinds = [{_KINDS}]\\n'
# Later it cannot be told any more: the guard lets nobody write the map.
CREDENTIALS = {"tmpfiles.extra": f"f+ /etc/clawos/monitor.toml 0644 root root - {_SETTINGS}\n".encode()}
"""For a guest to boot with."""


@contextmanager
def followed_cgroup(root: Callable[..., Output], name: str) -> Iterator[str]:
    """One in which acts may be done; its path below the root of them all."""
    path = f"{PARENT}/{name}"
    made = root(f"mkdir -p {CGROUPS}{path}")
    assert made.status == 0, made.stderr
    try:
        yield path
    finally:
        root(f"rmdir {CGROUPS}{path}")
