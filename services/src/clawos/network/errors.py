"""What a caller of the network room can act on."""

from __future__ import annotations

import errno
import os

from clawos.core.errors import ClawError


class NotASandbox(ClawError):
    """What was handed over is no socket in a network namespace of the caller's own."""

    name = "NotASandbox"


class FirewallChanged(ClawError):
    """The rules are not those that were loaded at the start: nobody is let in any more."""

    name = "FirewallChanged"

    def __init__(self) -> None:
        super().__init__(
            "the rules between sandboxes and the egress service were changed or removed",
            "load them again: systemctl restart clawos-network",
        )


class SegmentFull(ClawError):
    """As many sandboxes are attached as may be."""

    name = "SegmentFull"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} sandboxes are attached, and no more may be",
            "try again later; see sandboxes_max in /etc/clawos/network.toml",
            limit=limit,
        )


class ProgramRefused(ClawError):
    """There is an XDP program, and it cannot be had: no sandbox goes without it."""

    name = "ProgramRefused"

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(
            f"the pinned program {path} cannot be opened: {error.strerror}",
            "the group clawos-network must be able to read it: see 'ls -l /sys/fs/bpf/clawos'",
            errno=errno.errorcode.get(error.errno or 0),
        )


class LinkRefused(ClawError):
    """The kernel refused a part of the link. Field `step` names it; nothing of the link is left."""

    name = "LinkRefused"

    def __init__(self, step: str, error: OSError) -> None:
        number = error.errno or errno.EIO
        super().__init__(
            f"the sandbox could not be attached: {step}: {os.strerror(number)}",
            "see 'journalctl -u clawos-network'",
            step=step,
            errno=errno.errorcode.get(number, str(number)),
        )
        self.step = step
