"""Checks that ask the bus: systemd, our services, the model."""

from __future__ import annotations

import json
import os
from typing import Any

from clawos.claw import services
from clawos.claw.check import Finding, fail, ok, warn
from clawos.claw.services import Machine
from clawos.core.errors import ClawError
from clawos.core.names import Room

_AS_ROOT = "run claw doctor as root"


def failed_units(machine: Machine) -> Finding:
    try:
        failed = machine.failed_units()
    except ClawError as error:
        return fail(
            "units", f"systemd does not answer: {error.message}", "is this machine booted with systemd?"
        )
    if failed:
        return fail("units", f"failed: {', '.join(failed)}", f"see 'systemctl status {failed[0]}'")
    return ok("units", "no unit failed")


def answers(machine: Machine, room: Room) -> Finding:
    """Whether a service answers; starts it if need be."""
    check = f"bus {room.name}"
    try:
        machine.ask(room.bus_name, "Status")
    except ClawError as error:
        if error.bus_name.endswith("AccessDenied"):
            return warn(check, f"{room.bus_name} does not talk to you", _AS_ROOT)
        return fail(check, f"{room.bus_name}: {error.message}", f"see 'journalctl -u {room.unit} -n 20'")
    return ok(check, f"{room.bus_name} answers")


def tools(machine: Machine) -> Finding:
    try:
        status = machine.ask(services.AGENT, "Status")
    except ClawError as error:
        return warn("tools", f"cannot be listed: {error.message}", "see the check of the agent")
    invalid = status["tools_invalid"]
    if invalid:
        return fail(
            "tools",
            f"{invalid[0]['file']}: {invalid[0]['error']}",
            "correct the file; it is read again at once",
        )
    return ok("tools", f"{status['tools']} tools, no invalid manifest")


def model(machine: Machine) -> Finding:
    """Has the model in use say one token: a model that loads can do that."""
    request = {"messages": [{"role": "user", "content": "hello"}], "tools": [], "max_tokens": 1}
    try:
        done = _generate(machine, request)
    except ClawError as error:
        if error.bus_name.endswith("AccessDenied"):
            return warn("model", "only root may ask the model directly", _AS_ROOT)
        return fail("model", error.message, error.hint or "see 'claw model list'")
    return ok("model", f"{done['model']} answers; it was ready after {done['load_s']:.1f} s")


def _generate(machine: Machine, request: dict[str, Any]) -> dict[str, Any]:
    stream = machine.start(services.INFERENCE, "Chat", json.dumps(request))
    with os.fdopen(stream, "rb") as events:
        for line in events:
            event = json.loads(line)
            if event["type"] == "error":
                raise ClawError(str(event["message"]), str(event["hint"]))
            if event["type"] == "done":
                return dict(event)
    raise ClawError("the model stopped without an answer", "see 'journalctl -u clawos-inference -n 20'")


def control_group(machine: Machine) -> str:
    try:
        return machine.control_group(Room("isolator").unit)
    except ClawError:
        return ""
