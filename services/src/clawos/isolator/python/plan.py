"""The service's side: what a sandbox needs for a file of Python, and the command line that runs it."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from clawos.isolator.errors import SpecInvalid
from clawos.isolator.plan import Bind, Mount, Operation, Tmpfs
from clawos.isolator.runtimes import source_of
from clawos.isolator.spec import Spec

PYTHON = ("/usr/bin/python3", "-IS")
"""Isolated: no variable, no working directory and no user's files change what a file imports. Without `site`,
which a file may ask for by site.main()."""


def add_file(
    wanted: MutableMapping[str, Operation], spec: Spec, directories: tuple[str, ...]
) -> tuple[str, ...]:
    """Add the file to what the sandbox has; returns the argument vector. Raises SpecInvalid."""
    file = spec.argv[0]
    source = source_of(spec, "file", directories)
    above = [wanted.get(str(parent)) for parent in Path(file).parents]
    if any(isinstance(operation, Tmpfs) for operation in above):
        raise SpecInvalid(f"spec: {file} would lie in what is the call's own")
    if not any(isinstance(operation, Bind) for operation in above):
        wanted[file] = Bind(file, source, Mount.READ, is_directory=False)
    return (*PYTHON, *spec.argv)
