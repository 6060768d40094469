"""What Tab offers: /commands, names of tools, paths."""

from __future__ import annotations

import os

from clawos.clawsh.slash import COMMANDS, CORRECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_OFFERS = 200
_TAKES_TOOL = ("/tools ",)
_TAKES_WORD = {"/corrections ": CORRECTIONS}


def complete(before: str, tools: Callable[[], list[str]]) -> tuple[int, list[str]]:
    """For the text before the cursor: how many characters of it are replaced, and by what.

    `tools` is only asked when its answer matters: it is a call to the agent.
    """
    word = before.rsplit(" ", 1)[-1]
    if before.startswith("/") and " " not in before:
        offers = [name for name in COMMANDS if name.startswith(before)]
        return len(before), offers or _paths(word)
    for command, words in _TAKES_WORD.items():
        if before.startswith(command):
            return len(word), [offer for offer in words if offer.startswith(word)]
    if before.startswith("!"):
        word = word.removeprefix("!") if " " not in before else word
        return len(word), _paths(word)
    if "/" in word or word.startswith("~"):
        return len(word), _paths(word)
    if not word and not before.startswith(_TAKES_TOOL):
        return 0, []
    return len(word), [name for name in tools() if name.startswith(word)][:MAX_OFFERS]


def _paths(word: str) -> list[str]:
    directory, _, start = word.rpartition("/")
    shown = directory + "/" if "/" in word else ""
    if word == "~":
        return ["~/"]
    try:
        entries = list(os.scandir(os.path.expanduser(shown) or "."))  # noqa: PTH111
    except OSError:
        return []
    offers = []
    for entry in sorted(entries, key=lambda found: found.name):
        hidden = entry.name.startswith(".") and not start.startswith(".")
        if not entry.name.startswith(start) or hidden or not entry.name.isprintable():
            continue
        offers.append(shown + entry.name + ("/" if _is_directory(entry) else ""))
    return offers[:MAX_OFFERS]


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
