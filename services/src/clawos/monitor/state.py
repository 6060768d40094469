"""What the monitor knows from before, in its state directory: what tools usually do, what was seen before.

A file is written whole beside the old one and put in its place: after a crash there is the one or the other.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from clawos.monitor.baseline import Profile

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 64 * 1024 * 1024


class Known(msgspec.Struct):
    version: int = 1
    tools: dict[str, Profile] = msgspec.field(default_factory=dict)
    first_seen: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """By rule."""


def read(file: Path) -> Known:
    """What is there; a file that cannot be read is put aside, for whoever can mend it."""
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise ValueError("is too large")
        known = msgspec.json.decode(file.read_bytes(), type=Known)
        if known.version != 1:
            raise ValueError(f"has version {known.version}")
    except FileNotFoundError:
        return Known()
    except OSError as error:
        log.error("%s cannot be read: %s", file, error.strerror)
        return Known()
    except (msgspec.DecodeError, ValueError) as error:
        log.error("%s %s; it was put aside, and is learnt anew", file, error)
        with contextlib.suppress(OSError):
            file.replace(file.with_suffix(".damaged"))
        return Known()
    return known


def write(file: Path, data: bytes) -> None:
    """Raises OSError; then the old file stands as it was."""
    new = file.with_suffix(".new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
