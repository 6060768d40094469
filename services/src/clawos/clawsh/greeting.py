"""What stands above the first prompt."""

from __future__ import annotations

from clawos import __version__
from clawos.clawsh.agent import AGENT
from clawos.clawsh.clean import visible
from clawos.core.errors import ClawError, Unavailable, not_answering
from clawos.core.wire import Wire

SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = "/org/freedesktop/systemd1"
# The greeting waits for nobody: what systemd does not say within this time is left out.
_PATIENCE_S = 1
_MAX_NAMED = 3


def lines() -> list[str]:
    return [
        f"ClawOS {__version__}. Say what you need in plain words; !command runs one in the sandbox.",
        "Type /help for help, Ctrl-D to leave.",
    ]


def failed_units(wire: Wire) -> list[str]:
    """A line for each of the first units that failed; none when all is well or systemd is not there."""
    try:
        count = wire.read_property(
            SYSTEMD, _MANAGER, f"{SYSTEMD}.Manager", "NFailedUnits", timeout_s=_PATIENCE_S
        )
        if not count:
            return []
        (units,) = wire.call(
            SYSTEMD,
            _MANAGER,
            f"{SYSTEMD}.Manager",
            "ListUnitsFiltered",
            "as",
            [["failed"]],
            timeout_s=_PATIENCE_S,
        )
    except ClawError:
        return []
    names = [visible(unit[0]) for unit in units]
    shown = [f"{name} failed: see 'systemctl status {name}'" for name in names[:_MAX_NAMED]]
    rest = len(names) - _MAX_NAMED
    return [*shown, f"{rest} more failed: see 'systemctl --failed'"] if rest > 0 else shown


def agent_is_there(wire: Wire) -> Unavailable | None:
    """Why a request would fail, as far as the bus daemon alone can tell: it starts nothing."""
    if wire.has_owner(AGENT) or wire.can_start(AGENT):
        return None
    return not_answering(AGENT)
