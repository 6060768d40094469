"""Remembers what trials found, so that a start does not try out again what has not changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from clawos.core.errors import ClawError
from clawos.core.parse import Record, from_json, to_json
from clawos.inference.trial import Finding

_HEAD_BYTES = 1 << 20


class _Verdict(Record, frozen=True):
    key: str
    finding: Finding


def key_of(path: Path) -> str:
    """Changes with the file: inode, size, time of change, and a hash of its first MiB. Raises OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{head}"


class Verdicts:
    """Findings by the path of the model, kept in a file of ours."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, _Verdict] = {}
        try:
            self._known = from_json(file.read_bytes(), dict[str, _Verdict], str(file))
        except (OSError, ClawError):
            # A cache: without it each model is tried out once more.
            self._known = {}

    def get(self, path: Path, key: str) -> Finding | None:
        verdict = self._known.get(str(path))
        return verdict.finding if verdict and verdict.key == key else None

    def put(self, path: Path, key: str, finding: Finding) -> None:
        self._known[str(path)] = _Verdict(key=key, finding=finding)
        self._save()

    def forget(self, path: Path) -> None:
        if self._known.pop(str(path), None):
            self._save()

    def _save(self) -> None:
        write_atomically(self._file, to_json(self._known).encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a small file of ours, so that a power cut leaves the old one or the new one."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
