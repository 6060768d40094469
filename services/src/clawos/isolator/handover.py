"""What both backends make ready before a sandbox starts: its plan in a sealed file, its user's home."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from clawos.isolator.errors import SandboxRefused
from clawos.isolator.plan import Plan

_HOME_MODE = 0o770
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def sealed(data: bytes) -> int:
    """A descriptor from which data is read, from its start, and which nobody can change."""
    fd = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if os.pwrite(fd, data, 0) != len(data):  # memory ended in between
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def make_home(plan: Plan) -> None:
    """A user's home, ours by owner and the sandbox's by group, closed to everybody else.

    Looked at on every call: a restored backup or an interrupted first call leaves other rights. Nobody but us
    changes names in the directory above it, so what we look at is what we change.
    """
    if plan.home is None:
        return
    home = Path(plan.home)
    try:
        home.parent.mkdir(mode=0o711, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            home.mkdir(mode=0o700)
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise SandboxRefused("home", errno.ENOTDIR)
        if found.st_uid != os.geteuid():
            raise SandboxRefused("home", f"{home} belongs to the user {found.st_uid}")
        if found.st_gid != plan.gid:
            os.chown(home, -1, plan.gid)
        if stat.S_IMODE(found.st_mode) != _HOME_MODE:
            home.chmod(_HOME_MODE)
    except OSError as error:
        raise SandboxRefused("home", error.errno or errno.EIO) from None
