"""Roots that are made ahead: what is the same from call to call is built once by the launcher and kept here.

What we keep are descriptors of mount namespaces. We could not enter one: they belong to the launcher's own
user namespace. Nor could the sandbox of one plan get the root of another: equal keys are equal roots.
"""

from __future__ import annotations

import errno
import os
import select
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path

from clawos.isolator.errors import SandboxRefused
from clawos.isolator.plan import Bind, Plan
from clawos.isolator.wire import encode_root

_KEPT_MAX = 32
_MOUNTS = Path("/proc/self/mountinfo")

Key = tuple[bytes, tuple[tuple[int, int], ...]]


class Roots:
    """The roots of one launcher; another one may not enter them."""

    def __init__(self, build: Callable[[Plan], Awaitable[int]]) -> None:
        self._build = build
        self._kept: OrderedDict[Key, int] = OrderedDict()
        self._mounts = os.open(_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.poll()
        self._changes.register(self._mounts, select.POLLPRI)

    async def get(self, plan: Plan) -> int:
        """A descriptor of the plan's root, the caller's to close. Raises SandboxRefused, OSError."""
        if self._changes.poll(0):  # a mount came or went, below a bound directory perhaps
            self._forget()
        key = _key(plan)
        if key not in self._kept:
            built = await self._build(plan)
            if key in self._kept:  # two calls at once
                os.close(built)
            else:
                self._kept[key] = built
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT_MAX:
            os.close(self._kept.popitem(last=False)[1])
        return os.dup(self._kept[key])

    def close(self) -> None:
        self._forget()
        os.close(self._mounts)

    def _forget(self) -> None:
        while self._kept:
            os.close(self._kept.popitem()[1])


def _key(plan: Plan) -> Key:
    """The plan's own words, and which files its paths name just now. Raises SandboxRefused."""
    sources = (operation.source for operation in plan.operations if isinstance(operation, Bind))
    try:
        found = [Path(source).lstat() for source in sources]
    except OSError as error:
        raise SandboxRefused("bind-source", error.errno or errno.EIO) from None
    return encode_root(plan), tuple((status.st_dev, status.st_ino) for status in found)
