"""`claw session`: sessions that the monitor froze, and letting them go on."""

from __future__ import annotations

import pwd
from typing import Any

from clawos.claw import output, services
from clawos.claw.services import Machine

_TIMEOUT_S = 30


def collect(machine: Machine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.ask(services.AGENT, "Frozen")
    return found


def thaw(machine: Machine, session: str) -> None:
    machine.tell(services.AGENT, "Thaw", session, timeout_s=_TIMEOUT_S)


def show(found: list[dict[str, Any]]) -> None:
    if not found:
        print("no session is frozen")
        return
    rows = [[one["session"], _name(one["user"]), one["name"], one["reason"]] for one in found]
    output.print_table(["SESSION", "USER", "NAME", "WHY"], rows)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
