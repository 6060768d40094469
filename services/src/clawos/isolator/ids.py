"""Which ids sandboxes may have outside; claw-launch can give them no other."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from clawos.isolator.config import Config
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.plan import Plan


@dataclass(frozen=True)
class HostIds:
    users: frozenset[int]
    groups: frozenset[int]
    init: int
    """The first process of each sandbox: another than anybody in it."""
    calls: range
    """One for each call that runs."""

    @property
    def uid_map(self) -> str:
        return _map([(uid, 1) for uid in sorted(self.users)] + [(self.init, 1 + len(self.calls))])

    @property
    def gid_map(self) -> str:
        return _map((gid, 1) for gid in sorted(self.groups))


class CallIds:
    """Lends a call the id that is unused for longest, until it is given back."""

    def __init__(self, ids: HostIds) -> None:
        self._free = deque(ids.calls)

    def __len__(self) -> int:
        return len(self._free)

    def lend(self, plan: Plan) -> int:
        """Who the call is outside. Raises SandboxRefused when all are lent."""
        if not plan.has_own_uid:
            return plan.uid
        if not self._free:
            raise SandboxRefused("uid", errno.EAGAIN)
        return self._free.popleft()

    def give_back(self, plan: Plan, uid: int) -> None:
        if plan.has_own_uid:
            self._free.append(uid)


def host_ids(config: Config) -> HostIds:
    """The users and groups of the settings, as far as this machine has them, and our own."""
    users, groups = {os.geteuid()}, {os.getegid()}
    for name in config.run_as:
        try:
            user = pwd.getpwnam(name)
        except KeyError:  # a call that wants to run as this user is refused by the planner
            continue
        users.add(user.pw_uid)
        groups.add(user.pw_gid)
    for name in config.groups:
        try:
            groups.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue
    first = config.uid_first
    return HostIds(frozenset(users), frozenset(groups), first, range(first + 1, first + config.uid_count))


def _map(ranges: Iterable[tuple[int, int]]) -> str:
    """As /proc/PID/uid_map takes it: the same inside and outside."""
    return "".join(f"{first} {first} {count}\n" for first, count in ranges)
