"""The compiled seccomp filters, read once at the start."""

from __future__ import annotations

from pathlib import Path

from clawos.core.errors import ConfigInvalid

_INSTRUCTION_BYTES = 8
_INSTRUCTIONS_MAX = 4096


def load(directory: Path) -> dict[str, bytes]:
    """Filters by profile. Raises ConfigInvalid: without filters there are no sandboxes."""
    filters = {path.stem: path.read_bytes() for path in sorted(directory.glob("*.bpf"))}
    if not filters:
        raise ConfigInvalid(f"{directory} holds no compiled filter", "install the image's files again")
    for name, blob in filters.items():
        if not blob or len(blob) % _INSTRUCTION_BYTES or len(blob) > _INSTRUCTIONS_MAX * _INSTRUCTION_BYTES:
            raise ConfigInvalid(f"{directory}/{name}.bpf is no filter", "install the image's files again")
    return filters
