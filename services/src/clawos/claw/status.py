"""`claw status`: services, model, tools and memory at a glance. Starts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clawos.claw import output, services
from clawos.claw.services import Machine
from clawos.core.errors import ClawError
from clawos.core.names import Room

NEEDS_ROOT = "only root may ask"


def collect(machine: Machine, meminfo: Path = Path("/proc/meminfo")) -> dict[str, Any]:
    """Everything that `claw status` shows, as `--json` prints it."""
    return {
        "services": [_service(machine, room) for room in services.rooms()],
        "model": _ask(machine, services.INFERENCE),
        "agent": _ask(machine, services.AGENT),
        "memory": memory(meminfo),
    }


def _service(machine: Machine, room: Room) -> dict[str, Any]:
    runs = machine.runs(room.bus_name)
    try:
        unit = machine.unit(room.unit)
    except ClawError:  # no systemd here: the bus alone must tell
        unit = services.Unit(room.unit, "", "active" if runs else "unknown", "")
    return {
        "unit": room.unit,
        "bus_name": room.bus_name,
        "on_bus": runs,
        "active": unit.active,
        "sub": unit.sub,
        "memory_bytes": unit.memory_bytes,
    }


def _ask(machine: Machine, name: str) -> dict[str, Any]:
    if not machine.runs(name):
        return {"error": "does not run; it starts when it is needed"}
    try:
        return dict(machine.ask(name, "Status"))
    except ClawError as error:
        denied = error.bus_name.endswith("AccessDenied")
        return {"error": NEEDS_ROOT if denied else error.message}


def memory(meminfo: Path) -> dict[str, int]:
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return {"total_bytes": total, "available_bytes": available}


def show(found: dict[str, Any]) -> None:
    rows = [
        [
            service["unit"],
            f"{service['active']} ({service['sub']})" if service["sub"] else service["active"],
            "yes" if service["on_bus"] else "no",
            output.size(service["memory_bytes"]),
        ]
        for service in found["services"]
    ]
    output.print_table(["SERVICE", "STATE", "ON BUS", "MEMORY"], rows)
    print()
    print(f"model   {output.harmless(_model(found['model']))}")
    print(f"tools   {output.harmless(_tools(found['agent']))}")
    available, total = (output.size(found["memory"][name]) for name in ("available_bytes", "total_bytes"))
    print(f"memory  {available} of {total} available")


def _model(model: dict[str, Any]) -> str:
    if "error" in model:
        return str(model["error"])
    state = "loaded" if model["loaded"] else "not loaded"
    return (
        f"{model['model']}, {state}, {output.size(model['resident_bytes'])}, {model['context_tokens']} tokens"
    )


def _tools(agent: dict[str, Any]) -> str:
    if "error" in agent:
        return str(agent["error"])
    invalid = agent["tools_invalid"]
    bad = f", {len(invalid)} invalid: {', '.join(entry['file'] for entry in invalid)}" if invalid else ""
    return f"{agent['tools']}{bad}; {agent['sessions']} sessions"
