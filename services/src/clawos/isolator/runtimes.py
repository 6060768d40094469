"""What a runtime of ours runs instead of a program: a file below one of its directories."""

from __future__ import annotations

import os
from pathlib import Path

from clawos.isolator.errors import SpecInvalid
from clawos.isolator.spec import Spec


def source_of(spec: Spec, what: str, directories: tuple[str, ...]) -> str:
    """Where argv[0] really lies. `directories`: the setting with the runtime's name. Raises SpecInvalid."""
    file = spec.argv[0]
    source = os.path.realpath(file)
    for path in (file, source):
        if not any(path.startswith(directory.rstrip("/") + "/") for directory in directories):
            raise SpecInvalid(f"spec: {file} is not below {spec.runtime} in /etc/clawos/isolator.toml")
    if not Path(source).is_file():
        raise SpecInvalid(f"spec: there is no {what} {file}")
    return source
