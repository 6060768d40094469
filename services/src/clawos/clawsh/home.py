"""What clawsh keeps in a user's home: the history of the line editor, and which sessions are in use."""

from __future__ import annotations

import fcntl
import os
import pwd

# `-c` runs at the same time that get a session of their own; the agent allows a user 32 sessions in all.
SLOTS = 16


def directory() -> str:
    """`~/.local/state/clawos`. The home is that of the user database, as for any login."""
    home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    return os.path.join(home, ".local", "state", "clawos")  # noqa: PTH118 -- pathlib costs 5 ms at start


def make_directory() -> str | None:
    """The directory, made if need be; None where the home cannot be written."""
    path = directory()
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)  # noqa: PTH103
    except OSError:
        return None
    return path


def own_session() -> str:
    """Name of a session that no other clawsh of this user has while this process lives.

    Two scripts at once must not wait for each other, nor share what was said or approved. The lock is the
    kernel's: it ends with the process, however that ends.
    """
    path = make_directory()
    if path is None:
        return "command"
    for slot in range(1, SLOTS + 1):
        name = f"command-{slot}"
        fd = os.open(f"{path}/{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            continue
        return name  # the descriptor stays open, and with it the lock
    return "command"
