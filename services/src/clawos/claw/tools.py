"""`claw tools`: what the agent may call."""

from __future__ import annotations

from typing import Any

from clawos.claw import output, services
from clawos.claw.services import Machine
from clawos.core.errors import ClawError


class NoSuchTool(ClawError):
    """The agent has no tool of this name."""

    name = "NoSuchTool"


def collect(machine: Machine, name: str | None) -> list[dict[str, Any]]:
    """All tools, or the one of this name. Raises NoSuchTool."""
    found: list[dict[str, Any]] = machine.ask(services.AGENT, "Tools")
    if name is None:
        return found
    found = [tool for tool in found if tool["name"] == name]
    if not found:
        raise NoSuchTool(f"there is no tool {name!r}", "see 'claw tools'")
    return found


def show_all(tools: list[dict[str, Any]]) -> None:
    output.print_table(
        ["TOOL", "CLASS", "WHAT IT DOES"], [[t["name"], t["class"], t["description"]] for t in tools]
    )


def show_one(tool: dict[str, Any]) -> None:
    parameters = tool["parameters"]
    lines = [f"{tool['name']} ({tool['class']})", f"  {tool['description']}"]
    for name, schema in parameters.get("properties", {}).items():
        needed = "needed" if name in parameters.get("required", []) else "may be left out"
        kind = " | ".join(map(str, schema["enum"])) if "enum" in schema else str(schema.get("type", ""))
        lines.append(f"  {name}: {kind}, {needed}; {schema.get('description', '')}".rstrip("; "))
    if tool["verbs"]:
        lines.append(f"  only when asked for with: {', '.join(tool['verbs'])}")
    for line in lines:
        print(output.harmless(line))
