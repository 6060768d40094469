"""Calls that the user put right, kept for the next training of the model: only if wanted, and only here.

`~/.local/state/clawos/corrections.jsonl`, one object a line: {"text", "calls", "was"}, the latter two being
[{"tool", "args"}]. `make model CORRECTIONS=FILE` reads it; nothing else does, and nothing sends it anywhere.
"""

from __future__ import annotations

import json
import os

from clawos.clawsh import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_BYTES = 4 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Corrections:
    """The file, and the mark that they are wanted."""

    def __init__(self) -> None:
        self.path = os.path.join(home.directory(), "corrections.jsonl")  # noqa: PTH118 -- as in home
        self._mark = os.path.join(home.directory(), "corrections.on")  # noqa: PTH118

    @property
    def wanted(self) -> bool:
        return os.path.exists(self._mark)  # noqa: PTH110

    def want(self, on: bool) -> None:
        """Raises OSError where the home cannot be written."""
        if not on:
            try:
                os.unlink(self._mark)  # noqa: PTH108
            except FileNotFoundError:
                return
        else:
            home.make_directory()
            os.close(os.open(self._mark, _CREATE, 0o600))

    def keep(self, text: str, calls: list[dict[str, Any]], was: list[dict[str, Any]]) -> None:
        """Append one, on disk when this returns. Raises OSError, also when the file is full."""
        line = json.dumps({"text": text, "calls": calls, "was": was}) + "\n"
        fd = os.open(self.path, _CREATE | os.O_APPEND, 0o600)
        try:
            if os.fstat(fd).st_size + len(line) > MAX_BYTES:
                raise OSError(f"{self.path} is full; see /corrections clear")
            os.write(fd, line.encode())
            os.fsync(fd)
        finally:
            os.close(fd)

    def load(self) -> tuple[list[dict[str, Any]], int]:
        """What is kept, and how many lines make no sense."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return [], 0
        kept = [found for line in lines if (found := _parse(line))]
        return kept, len(lines) - len(kept)

    def clear(self) -> None:
        """Raises OSError."""
        try:
            os.unlink(self.path)  # noqa: PTH108
        except FileNotFoundError:
            return


def _parse(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    sound = (
        isinstance(found, dict)
        and isinstance(found.get("text"), str)
        and all(_are_calls(found.get(key)) for key in ("calls", "was"))
    )
    return found if sound else None


def _are_calls(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(call, dict) and isinstance(call.get("tool"), str) and isinstance(call.get("args"), dict)
        for call in value
    )
