"""What was typed before: `~/.local/state/clawos/history`, one entry a line, the newest last."""

from __future__ import annotations

import os

MAX_ENTRIES = 2000


class History:
    """The file; everything still works where it cannot be read or written."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def load(self) -> list[str]:
        """Entries, oldest first; a file that grew too long is cut."""
        if self._path is None:
            return []
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                lines = file.read().split("\n")[:-1]
        except OSError:
            return []
        if len(lines) > 2 * MAX_ENTRIES:
            lines = lines[-MAX_ENTRIES:]
            self._rewrite(lines)
        return [_unescape(line) for line in lines]

    def append(self, entry: str) -> None:
        """Keep an entry. One that begins with a space is not kept, as in other shells."""
        if self._path is None or not entry.strip() or entry[0] == " ":
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(self._path, flags, 0o600)
        except OSError:
            return
        try:
            # One write: two shells of one user append to the same file.
            os.write(fd, (_escape(entry) + "\n").encode(errors="replace"))
        except OSError:
            return  # a full disk must not end the shell
        finally:
            os.close(fd)

    def _rewrite(self, lines: list[str]) -> None:
        new = f"{self._path}.new"
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
                file.write("\n".join(lines) + "\n")
            os.replace(new, str(self._path))  # noqa: PTH105
        except OSError:
            return


def _escape(entry: str) -> str:
    return entry.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(line: str) -> str:
    return "\\".join(part.replace("\\n", "\n") for part in line.split("\\\\"))
