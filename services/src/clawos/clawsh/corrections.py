"""Calls that the user edited before they ran, kept for the next training of the model: off until switched on,
in the user's own files, and never sent anywhere.

One JSON object a line in `corrections.jsonl`: the request, the calls as they ran, the calls as the model made
them. While `corrections.on` lies beside it, lines are added.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import stat

from clawos.clawsh.clean import visible
from clawos.clawsh.view import arguments
from clawos.core.errors import ClawError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Call = dict[str, Any]

MAX_BYTES = 4 * 1024 * 1024


class CorrectionsUnusable(ClawError):
    """Corrections cannot be kept, read or removed."""

    name = "CorrectionsUnusable"


def directory() -> str:
    """`$XDG_DATA_HOME/clawos`, which is `~/.local/share/clawos` where nothing else is said."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):  # so the specification has it: a relative one is no path at all
        home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
        data = f"{home}/.local/share"
    return f"{data}/clawos"


def path() -> str:
    return f"{directory()}/corrections.jsonl"


def _switch() -> str:
    return f"{directory()}/corrections.on"


def are_kept() -> bool:
    return os.path.exists(_switch())  # noqa: PTH110


def keep(on: bool) -> None:
    """Begin or end to keep corrections; those that there are stay. Raises CorrectionsUnusable."""
    try:
        if on:
            os.makedirs(directory(), mode=0o700, exist_ok=True)  # noqa: PTH103
            os.close(os.open(_switch(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        elif are_kept():
            os.unlink(_switch())  # noqa: PTH108
        else:
            return
        _sync_directory()
    except OSError as error:
        raise _unusable(error) from None


def add(text: str, calls: list[Call], was: list[Call]) -> None:
    """Keep one correction, on disk when this returns. Raises CorrectionsUnusable."""
    line = (json.dumps({"text": text, "calls": calls, "was": was}) + "\n").encode()
    try:
        os.makedirs(directory(), mode=0o700, exist_ok=True)  # noqa: PTH103
        fd = os.open(path(), os.O_RDWR | os.O_CREAT | os.O_APPEND | _SAFELY, 0o600)
        try:
            _append(fd, line)
        finally:
            os.close(fd)
        _sync_directory()
    except OSError as error:
        raise _unusable(error) from None


# Neither through a link nor waiting for whoever would read a pipe of this name.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _append(fd: int, line: bytes) -> None:
    _check_file(fd)
    fcntl.flock(fd, fcntl.LOCK_EX)  # two shells of one user write to the same file
    os.fchmod(fd, 0o600)
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        line = b"\n" + line  # what a full disk or an editor left unfinished stays a line of its own
    if size + len(line) > MAX_BYTES:
        raise CorrectionsUnusable(
            f"{path()} is full: {MAX_BYTES // 1024**2} MiB",
            "hand it to a training, then: /corrections clear",
        )
    try:
        if os.write(fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


def load() -> tuple[list[dict[str, Any]], list[int]]:
    """Those there are, oldest first, and the numbers of lines that are none. Raises CorrectionsUnusable."""
    try:
        fd = os.open(path(), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            _check_file(fd)
            content = file.read(2 * MAX_BYTES)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise _unusable(error) from None
    good, bad = [], []
    for number, line in enumerate(content.split(b"\n"), 1):
        found = _parse(line)
        if found is not None:
            good.append(found)
        elif line.strip():
            bad.append(number)
    return good, bad


def clear() -> bool:
    """Remove all of them. Returns whether there was a file. Raises CorrectionsUnusable."""
    try:
        os.unlink(path())  # noqa: PTH108
        _sync_directory()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unusable(error) from None
    return True


def shown(correction: dict[str, Any]) -> str:
    """One correction for a person."""
    lines = [visible(correction["text"])]
    for name, calls in (("was", correction["was"]), ("now", correction["calls"])):
        lines += [f"  {name}: {visible(call['tool'])}{arguments(call['args'])}" for call in calls]
    return "\n".join(lines)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        return None
    return found if _are_calls(found.get("calls")) and _are_calls(found.get("was")) else None


def _are_calls(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(call, dict) and isinstance(call.get("tool"), str) and isinstance(call.get("args"), dict)
        for call in value
    )


def _check_file(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "not a plain file")


def _sync_directory() -> None:
    """A file that was just made is there after a power cut only when its folder was synced, too."""
    fd = os.open(directory(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unusable(error: OSError) -> CorrectionsUnusable:
    return CorrectionsUnusable(
        f"corrections: {error.filename or path()}: {error.strerror}", "see /corrections path"
    )
