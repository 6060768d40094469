"""policies/quotas.toml: what one call may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from clawos.core.parse import Record, from_toml
from clawos.isolator.wasm.options import STACK_BYTES_MAX

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Bytes = Annotated[int, msgspec.Meta(ge=4096, le=2**40)]


class Wasm(Record, frozen=True):
    """What one WebAssembly module may use, inside the limits of its call."""

    fuel: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    memory_bytes: Annotated[int, msgspec.Meta(ge=65536, le=2**32, multiple_of=65536)]
    stack_bytes: Annotated[int, msgspec.Meta(ge=65536, le=STACK_BYTES_MAX)]
    tables: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    table_elements: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    module_bytes: _Bytes


class Quota(Record, frozen=True):
    memory_bytes: _Bytes
    pids: Annotated[int, msgspec.Meta(ge=4, le=32768)]
    cpu_percent: _Positive
    wall_s: Annotated[int, msgspec.Meta(ge=1, le=86400)]
    tmp_bytes: _Bytes
    output_bytes: _Bytes
    file_bytes: _Bytes
    disk_bytes_s: _Bytes
    """Read from the disk, and as much written to it, each second."""
    open_files: Annotated[int, msgspec.Meta(ge=16, le=65536)]
    wasm: Wasm


def load(path: Path) -> dict[str, Quota]:
    """Quotas by name. Raises ConfigInvalid."""
    return from_toml(path, dict[str, Quota])
