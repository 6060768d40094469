"""Editing the arguments of a call that waits for an answer. The agent, not this, says what fits the tool."""

from __future__ import annotations

import json

from clawos.clawsh.clean import visible
from clawos.clawsh.editor import make_value_editor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clawos.clawsh.interrupt import Interrupts
    from clawos.clawsh.sink import Sink


def edit(args: dict[str, Any], screen: Sink, interrupts: Interrupts) -> dict[str, Any]:
    """Each argument in its turn. Returns the new ones, or the old ones after Ctrl-C."""
    screen.line("Enter takes a value as it stands; Ctrl-C leaves all as it was.", "dim")
    edited = {}
    with interrupts.set_aside():
        editor = make_value_editor(screen)
        try:
            for name, value in args.items():
                typed = editor.read(f"  {visible(name)}", _text(value))
                edited[name] = _value(typed.encode(errors="replace").decode(), value)
        except (KeyboardInterrupt, EOFError):
            screen.end_line()
            return args
        finally:
            editor.close()
    return edited


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(text: str, before: Any) -> Any:
    """What was typed, of the type that stood there where it can be read as one."""
    if isinstance(before, str):
        return text
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float)) else text
