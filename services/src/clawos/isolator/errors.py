"""What a caller of the isolator can act on."""

from __future__ import annotations

import errno
import os

from clawos.core.errors import ClawError

# What a step's failure most often means, so that the hint is of use.
_HINTS = {
    "namespaces": "check that user namespaces are enabled: sysctl user.max_user_namespaces",
    "proc": "the isolator's unit must not hide parts of /proc (ProtectKernelTunables= and its kin)",
    "landlock-abi": "the kernel's Landlock is older than landlock_min_abi in /etc/clawos/isolator.toml",
    "cwd": "the directory does not exist in the sandbox",
    "bind-source": "a file or directory that the tool's manifest names is missing or is a link",
    "home": "see 'ls -la /var/lib/clawos/isolator/home'; a home is clawos-isolator's own directory",
    "exec": "the tool's program is missing from the image or is not executable",
    "bubblewrap-version": 'backend = "launcher" in /etc/clawos/isolator.toml needs none',
    "openat2": '/etc/clawos/isolator.toml says what else to set for backend = "bubblewrap"',
    "cgroup": "see 'systemctl show clawos-isolator -p Delegate -p DelegateControllers'",
}


class SpecInvalid(ClawError):
    """The specification of a call does not parse or asks for what no call may have."""

    name = "SpecInvalid"


class GroupTooLarge(ClawError):
    """A group of more calls than may ever run at a time: waiting would not help."""

    name = "GroupTooLarge"

    def __init__(self, calls: int, most: int, limit: str) -> None:
        super().__init__(
            f"{calls} calls never run at a time: {limit} is {most}",
            f"make the group smaller, or raise {limit} in /etc/clawos/isolator.toml",
            calls=calls,
            most=most,
            limit=limit,
        )


class SandboxRefused(ClawError):
    """A part of the sandbox could not be set up; nothing ran. Field `step` names the part."""

    name = "SandboxRefused"

    def __init__(self, step: str, error: int | str) -> None:
        words = os.strerror(error) if isinstance(error, int) else error
        super().__init__(
            f"the sandbox could not be set up: {step}: {words}",
            _HINTS.get(step, "see 'journalctl -u clawos-isolator'"),
            step=step,
            errno=errno.errorcode.get(error, str(error)) if isinstance(error, int) else None,
        )
        self.step = step

    def of_call(self, index: int, tool: str) -> SandboxRefused:
        """The same, said of one call of a group."""
        self.message = f"call {index}, {tool}: {self.message}"
        self.args = (self.message,)
        self.fields["call"] = index
        return self


class EgressRefused(SandboxRefused):
    """A call asks for the way to the egress service and cannot have it; nothing ran. Field `reason`: why."""

    name = "EgressRefused"

    def __init__(self, error: ClawError) -> None:
        super().__init__("egress", error.message)
        self.hint = error.hint
        self.fields = {"step": self.step, "reason": error.bus_name.rpartition(".")[2]}
