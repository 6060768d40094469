"""A room's settings: the defaults stand in its `config.py`, `/etc/clawos/<room>.toml` overrides them."""

from __future__ import annotations

import os
from pathlib import Path

from clawos.core.names import Room
from clawos.core.parse import Record, from_toml


def load[R: Record](room: Room, kind: type[R]) -> R:
    """Settings of a room; a missing file means the defaults, a wrong one is ConfigInvalid.

    `CLAWOS_CONFIG_DIR` replaces /etc/clawos, for tests and for running a room outside the image.
    """
    directory = os.environ.get("CLAWOS_CONFIG_DIR")
    path = Path(directory) / room.config_file.name if directory else room.config_file
    return from_toml(path, kind) if path.exists() else kind()
