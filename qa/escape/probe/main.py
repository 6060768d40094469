"""What a hostile program tries: GROUP [FACTS], or "one" and a call's name. Prints {act: answer} as JSON.

The same program runs in the sandbox and, as the positive control, outside as root. FACTS (JSON) is what the
attacker is told of the host: process ids, sockets. `share.py` brings it into the guest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from qa.escape.probe import act, calls, files, world

GROUPS: dict[str, Callable[[dict[str, Any]], dict[str, act.Act]]] = {
    "calls": calls.acts,
    "unnamed": calls.unnamed,
    "files": files.acts,
    "world": world.acts,
}


def main(group: str, facts: str = "{}") -> None:
    if group == "one":
        print(json.dumps({facts: act.answer(calls.acts({})[facts])}))
        return
    print(json.dumps({name: act.answer(do) for name, do in GROUPS[group](json.loads(facts)).items()}))
