"""In the guest: make a cgroup of which all is recorded, outside of all services. Prints its path."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from qa.load import bpf

CGROUPS = Path("/sys/fs/cgroup")
FOLLOWS = Path("/sys/fs/bpf/clawos/maps/follows")
_EVERY_KIND = (1 << 64) - 1
_NO_CALL, _NO_INDEX, _NO_POLICY = 0, 0, 0


def follow(name: str) -> Path:
    """As the loader does with a subtree that monitor.toml names."""
    cgroup = CGROUPS / name
    cgroup.mkdir(exist_ok=True)
    directory, follows = os.open(cgroup, os.O_RDONLY), bpf.open_pin(FOLLOWS)
    try:
        value = struct.pack("=QQII", _EVERY_KIND, _NO_CALL, _NO_INDEX, _NO_POLICY)
        bpf.update(follows, struct.pack("=i", directory), value)
    finally:
        os.close(directory)
        os.close(follows)
    return cgroup


if __name__ == "__main__":
    print(follow(sys.argv[1]))
