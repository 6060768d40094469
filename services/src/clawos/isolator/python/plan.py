"""The service's side: what a sandbox needs for a file of Python, and the command line that runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from clawos.isolator.errors import SpecInvalid
from clawos.isolator.plan import Bind, Mount, Operation
from clawos.isolator.spec import Spec

PYTHON = ("/usr/bin/python3", "-IS")
"""Isolated: no variable, no working directory and no user's files change what a file imports. Without `site`,
which a file may ask for by site.main()."""


def add_file(
    wanted: MutableMapping[str, Operation], spec: Spec, directories: tuple[str, ...]
) -> tuple[str, ...]:
    """Add the file to what the sandbox has; returns the argument vector. Raises SpecInvalid."""
    file = spec.argv[0]
    source = os.path.realpath(file)
    for path in (file, source):
        if not any(path.startswith(directory.rstrip("/") + "/") for directory in directories):
            raise SpecInvalid(f"spec: {file} is not below python in /etc/clawos/isolator.toml")
    if not Path(source).is_file():
        raise SpecInvalid(f"spec: there is no file {file}")
    if not _is_seen(wanted, file):
        wanted[file] = Bind(file, source, Mount.READ, is_directory=False)
    return (*PYTHON, *spec.argv)


def _is_seen(wanted: Mapping[str, Operation], file: str) -> bool:
    return any(
        str(parent) in wanted for parent in Path(file).parents if isinstance(wanted.get(str(parent)), Bind)
    )
