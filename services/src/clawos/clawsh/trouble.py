"""What clawsh says when a request cannot even begin: which unit to look at, and the way out for an
administrator."""

from __future__ import annotations

import os

from clawos.clawsh import exit_codes
from clawos.core.errors import PREFIX, ClawError, RemoteError, Unavailable

ADMIN_GROUP = "clawos-admin"


def explain(error: ClawError, *, interactive: bool) -> tuple[str, str, str, int]:
    """Bus name, sentence, hint and exit code for an error."""
    name = error.bus_name
    if isinstance(error, Unavailable):
        unit = str(error.fields.get("unit") or "clawos-agent")
        sentence = (
            "the agent does not answer: is clawos-agent.service running?"
            if unit == "clawos-agent"
            else f"{error.message} ({unit}.service)"
        )
        hints = [f"systemctl status {unit}", f"journalctl -u {unit} -n 20"]
        if interactive and is_administrator():
            hints.append("/rescue              (a plain /bin/sh, outside the sandbox)")
        return name, sentence, "\n".join(hints), exit_codes.FAILED
    if isinstance(error, RemoteError) and name.endswith(".AccessDenied"):
        return (
            f"{PREFIX}AccessDenied",
            "you may not talk to the agent",
            "an administrator can let you: usermod -aG clawos USER",
            exit_codes.REFUSED,
        )
    code = exit_codes.REFUSED if name == f"{PREFIX}AccessDenied" else exit_codes.FAILED
    return name, error.message, error.hint, code


def is_administrator() -> bool:
    """root, or a member of the group clawos-admin (see docs/services/clawsh.md)."""
    if os.geteuid() == 0:
        return True
    import grp

    try:
        return grp.getgrnam(ADMIN_GROUP).gr_gid in {os.getegid(), *os.getgroups()}
    except KeyError:
        return False


def rescue() -> None:
    """Become a plain login shell. Comes back only by an exception."""
    os.environ["SHELL"] = "/bin/sh"
    # By sd-bus: run0 and systemctl give up on a password after 25 s, and the prompt stays behind.
    os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "300")
    os.execv("/bin/sh", ["-sh"])  # noqa: S606 -- to become the shell is the point
