"""The /commands: one table, from which /help, completion and their tests are fed."""

from __future__ import annotations

from clawos.clawsh import exit_codes
from clawos.clawsh.clean import clean, visible
from clawos.core.errors import ClawError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from clawos.clawsh.shell import Shell

    Action = Callable[[Shell, str], int]


class SlashError(ClawError):
    """A /command was given something it cannot use."""

    name = "BadRequest"


def help_(shell: Shell, _argument: str) -> int:
    rows = [
        ("WORDS", "say what you need; the agent finds the tools for it"),
        ("!COMMAND", "run COMMAND in the sandbox"),
    ]
    rows += [(f"{name} {argument}".strip(), meaning) for name, (argument, meaning, _) in COMMANDS.items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {meaning}" for name, meaning in rows]
    lines += [
        "",
        "  Tab completes; Ctrl-R searches what you typed before.",
        "  Ctrl-C stops what is under way; Ctrl-D leaves.",
    ]
    shell.say("\n".join(lines))
    return exit_codes.DONE


def tools(shell: Shell, name: str) -> int:
    found = shell.agent.tools()
    if not name:
        width = max((len(visible(tool["name"])) for tool in found), default=0)
        rows = [
            f"  {visible(t['name']):<{width}}  {visible(t['class']):<9}  {visible(t['description'])}"
            for t in found
        ]
        shell.say("\n".join(rows))
        return exit_codes.DONE
    tool = next((tool for tool in found if tool["name"] == name), None)
    if tool is None:
        raise SlashError(f"there is no tool {name!r}", "see /tools")
    shell.say(_describe(tool))
    return exit_codes.DONE


def _describe(tool: dict[str, Any]) -> str:
    parameters = tool.get("parameters") or {}
    required = parameters.get("required", [])
    lines = [f"{visible(tool['name'])}: {visible(tool['description'])}", f"  class: {visible(tool['class'])}"]
    for name, schema in parameters.get("properties", {}).items():
        kind = "one of " + ", ".join(map(str, schema["enum"])) if "enum" in schema else schema.get("type", "")
        need = "" if name in required else ", may be left out"
        lines.append(
            f"  {visible(name)}: {visible(str(schema.get('description', '')))} ({visible(str(kind))}{need})"
        )
    return "\n".join(lines)


def plan(shell: Shell, text: str) -> int:
    if not text:
        raise SlashError("/plan needs a request", "try: /plan restart nginx")
    return shell.ask(text, plan=True)


def model(shell: Shell, name: str) -> int:
    try:
        if name:
            shell.agent.use_model(name)
        models = shell.agent.models()
    except ClawError as error:
        if not error.bus_name.endswith("AccessDenied"):
            raise
        raise SlashError(
            "models are for the administrator to see and choose", "as root: claw model list"
        ) from None
    rows = []
    for found in models:
        mark = "*" if found["active"] else " "
        size = f"{found['size_bytes'] / 1e6:.0f} MB"
        rows.append(f"{mark} {visible(found['name'])}  {size}  {visible(found['error'] or '')}")
    shell.say("\n".join(row.rstrip() for row in rows))
    return exit_codes.DONE


def history(shell: Shell, _argument: str) -> int:
    lines = []
    for message in shell.agent.history():
        role, content = str(message.get("role", "")), clean(str(message.get("content") or "")).strip()
        calls = message.get("tool_calls") or []
        who = {"user": "you", "assistant": "agent"}.get(role, visible(str(message.get("tool") or role)))
        if content:
            lines.append(f"{who}: " + content.replace("\n", "\n    "))
        lines += [f"agent calls {visible(str(call.get('tool')))}" for call in calls if isinstance(call, dict)]
    shell.say("\n".join(lines) if lines else "nothing was said in this session yet")
    return exit_codes.DONE


def output(shell: Shell, _argument: str) -> int:
    if not shell.outputs:
        raise SlashError("no tool has run yet in this shell", "ask for something first")
    shell.say(clean("\n".join(shell.outputs)).rstrip("\n"))
    return exit_codes.DONE


def trace(shell: Shell, call: str) -> int:
    from clawos.clawsh import traced

    shell.say(traced.shown(shell.agent.trace(call or "last")))
    return exit_codes.DONE


def clear(shell: Shell, _argument: str) -> int:
    if shell.stdout.styled:
        shell.stdout.write("\x1b[H\x1b[2J")
    return exit_codes.DONE


def rescue(shell: Shell, _argument: str) -> int:
    from clawos.clawsh import trouble

    if not (shell.interactive and trouble.is_administrator()):
        raise SlashError(
            "a rescue shell is for administrators at a terminal", f"see group {trouble.ADMIN_GROUP}"
        )
    shell.say("A plain shell: no agent, no sandbox. Leave it with exit.")
    trouble.rescue()
    return exit_codes.FAILED


def quit_(shell: Shell, _argument: str) -> int:
    shell.leaving = True
    return exit_codes.DONE


CORRECTIONS = {
    "on": "keep the calls that you edit and approve, for a later training",
    "off": "keep no more; those that there are stay",
    "show": "show those that there are",
    "clear": "remove them",
    "path": "say which file they are in",
}


def corrections(shell: Shell, word: str) -> int:
    from clawos.clawsh import corrections as kept

    match word:
        case "on" | "off":
            kept.keep(word == "on")
            shell.say(_corrections_are(on=kept.are_kept()))
        case "show":
            return _show_corrections(shell)
        case "clear":
            shell.say("removed" if kept.clear() else "there are none")
        case "path":
            shell.say(visible(kept.path()))
        case "":
            shell.say(_corrections_are(on=kept.are_kept()))
            shell.say(
                "\n".join(f"  /corrections {name:<5}  {meaning}" for name, meaning in CORRECTIONS.items())
            )
        case _:
            raise SlashError(f"what is {word!r}?", f"/corrections takes one of: {', '.join(CORRECTIONS)}")
    return exit_codes.DONE


def _corrections_are(*, on: bool) -> str:
    if on:
        return "corrections are kept, in a file of yours: /corrections path. They are never sent anywhere."
    return "corrections are not kept"


def _show_corrections(shell: Shell) -> int:
    from clawos.clawsh import corrections as kept

    found, bad = kept.load()
    if found:
        shell.say("\n".join(map(kept.shown, found)))
    if bad:
        numbers = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        shell.stderr.line(f"clawsh: not a correction, and passed over: line {numbers}")
    if not found and not bad:
        shell.stderr.line("clawsh: there are no corrections")
    return exit_codes.DONE


COMMANDS: dict[str, tuple[str, str, Action]] = {
    "/help": ("", "show this", help_),
    "/tools": ("[NAME]", "list the tools, or describe one", tools),
    "/plan": ("TEXT", "show which calls a request would lead to, and run nothing", plan),
    "/model": ("[NAME]", "list the models, or use another (administrators)", model),
    "/history": ("", "show what was said in this session", history),
    "/output": ("", "show the last tools' output in full", output),
    "/trace": ("[CALL]", "show what the last call really did: programs, files, connections", trace),
    "/corrections": (
        "[WORD]",
        "calls that you edited: on, off, show, clear, path",
        corrections,
    ),
    "/clear": ("", "clear the screen", clear),
    "/rescue": ("", "a plain /bin/sh for administrators: run0, systemctl, journalctl", rescue),
    "/quit": ("", "leave; so do exit and Ctrl-D", quit_),
}


def find(line: str) -> Action | None:
    """What a line that begins with / means; None for a path at the start of a sentence. Raises SlashError."""
    word = line.split()[0]
    if word in COMMANDS:
        return COMMANDS[word][2]
    if "/" in word[1:] or len(line.split()) > 1:
        return None
    raise SlashError(f"there is no {visible(word)}", "see /help")
