"""Settings of the inference room, from /etc/clawos/inference.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from clawos.core.names import Room
from clawos.core.parse import Record

ROOM = Room("inference")


class Config(Record, frozen=True):
    """Every setting has a value that works on a small machine without a file."""

    builtin: Path = Path("/usr/share/clawos/models/builtin.gguf")
    models: Path = Path("/var/lib/clawos/models")
    state: Path = ROOM.state_dir
    threads: Annotated[int, msgspec.Meta(ge=0, le=512)] = 0
    """0: as many as there are physical cores that we may run on."""
    context_tokens: Annotated[int, msgspec.Meta(ge=64, le=1 << 20)] = 4096
    """Upper bound; a model trained on less gets what it was trained on."""
    queue: Annotated[int, msgspec.Meta(ge=0, le=64)] = 4
    """Chats that may wait while one is generating."""
    max_model_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 << 30
    trial_s: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    """How long the trial load of a model may take; large files on slow disks need minutes."""
    render_s: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    """How long a model's chat template may take for one prompt."""
    drain_s: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    """How long a reader may leave finished events unread before its stream is dropped."""

    def thread_count(self) -> int:
        """Threads for llama.cpp: a second thread on one core only takes turns with the first."""
        return self.threads or physical_cores(os.sched_getaffinity(0))


def physical_cores(cpus: set[int], topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Distinct cores among these CPUs; where the kernel does not tell, every CPU counts as one."""
    cores = set()
    for cpu in cpus:
        siblings = topology / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))
