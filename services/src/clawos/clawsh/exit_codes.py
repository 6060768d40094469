"""What clawsh exits with. Scripts rely on these; docs/man/clawsh.1 lists them."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2
REFUSED = 3
APPROVAL_NEEDED = 4
TIMED_OUT = 124
INTERRUPTED = 130
READER_GONE = 141
"""As a shell reports a program that SIGPIPE ended: `clawsh -c … | head`."""

MEANING = {
    DONE: "done",
    FAILED: "the request failed",
    USAGE: "wrong usage",
    REFUSED: "refused, by you or by a rule",
    APPROVAL_NEEDED: "needs approval, and there was nobody to ask",
    TIMED_OUT: "timed out",
    INTERRUPTED: "interrupted",
}

OF_STATUS = {
    "done": DONE,
    "planned": DONE,
    "failed": FAILED,
    "refused": REFUSED,
    "approval_needed": APPROVAL_NEEDED,
    "timed_out": TIMED_OUT,
    "interrupted": INTERRUPTED,
}
"""`status` of the last event of a turn, see docs/specs/bus.md."""


def of_command(exit_code: int, signal: int | None, limit: str | None) -> int:
    """Exit code of a `!command`, from the isolator's result: the command's own, 128+signal, or 124."""
    if limit == "wall":
        return TIMED_OUT
    if limit == "cancelled":
        return INTERRUPTED
    if signal:
        return 128 + signal
    return exit_code
