"""What a call really did, as the monitor saw it, for people."""

from __future__ import annotations

from clawos.clawsh.clean import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

SHOWN_MAX = 20
CHARACTERS_MAX = 200
"""Of one thing: a program may be one long argument."""
_OF_THE_SYSTEM = ("/usr/lib/", "/lib/", "/lib64/", "/etc/ld.so", "/proc/self/", "/usr/share/locale/", "/dev/")


def shown(found: Mapping[str, Any]) -> str:
    lines = [f"{visible(found['tool'] or 'a call')} ({visible(found['call'])}), {visible(found['began'])}"]
    programs = [visible(" ".join(ran["args"]) or ran["path"]) for ran in found["programs"]]
    lines += _part("ran", programs)
    files = found["files"]
    own = [path for path in files["read"] if not path.startswith(_OF_THE_SYSTEM)]
    others = len(files["read"]) - len(own)
    lines += _part("read", [visible(path) for path in own])
    if others:
        lines.append(f"  read      {others} files of the system")
    lines += _part("wrote", [visible(path) for path in files["written"]])
    lines += _part("removed", [visible(path) for path in files["removed"]])
    lines += _part("network", [visible(text) for text in found["connections"]])
    lines += _part("also", [visible(text) for text in found["other"]])
    alerts = [one for one in found["alerts"] if one["severity"] != "info"]  # a note is no alert to people
    lines += _part("alert", [visible(f"{one['severity']}: {one['message']}") for one in alerts])
    if not found["complete"]:
        lines.append("  It did more than is kept.")
    return "\n".join(lines)


def _part(name: str, what: Sequence[str]) -> list[str]:
    lines = [f"  {name if not at else '':<9} {_cut(text)}" for at, text in enumerate(what[:SHOWN_MAX])]
    if len(what) > SHOWN_MAX:
        lines.append(f"  {'':<9} and {len(what) - SHOWN_MAX} more")
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS_MAX else f"{text[: CHARACTERS_MAX - 1]}…"
