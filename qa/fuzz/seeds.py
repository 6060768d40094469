"""The first plans of the corpus: real ones, with short contents. Run as `python -m qa.fuzz.seeds FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from clawos.core.parse import to_json
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.plan import File, Plan, Proxy
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse
from clawos.isolator.wire import encode

ALLOW_ALL = bytes.fromhex("06000000 0000ff7f")
FILTERS = ("shell", "shell-egress")
PROXY = Proxy("198.19.255.1", 8118)
CALLS: dict[str, dict[str, Any]] = {
    "nothing": {"argv": ["/usr/bin/true"]},
    "home": {"argv": ["/bin/sh", "-c", "ls"], "home": "write", "home_owner": 0, "wall_s": 0.5},
    "reads": {"argv": ["/usr/bin/cat"], "read": ["/etc"], "groups": ["systemd-journal"], "stdin": True},
    "process": {"argv": ["/usr/lib/clawos/tools/process"], "host_proc": True, "env": {"A": "b", "C": ""}},
    "egress": {"argv": ["/usr/bin/true"], "network": "egress"},
    "units": {"argv": ["/usr/lib/clawos/tools/units", "list"], "run_as": "clawos-units", "quota": "medium"},
}


def short(plan: Plan) -> Plan:
    """The users of the machine that makes the seeds are not theirs to tell."""
    operations = (
        replace(o, content=b"x:x:1\n" if o.content else b"") if isinstance(o, File) else o
        for o in plan.operations
    )
    return replace(plan, operations=tuple(operations), hostname="localhost")


def main(folder: Path) -> None:
    planner = Planner(
        Config(), quotas.load(Path("policies/quotas.toml")), dict.fromkeys(FILTERS, ALLOW_ALL * 3)
    )
    for name, call in CALLS.items():
        spec = parse(to_json({"tool": f"seed.{name}", **call}))
        plan = planner.plan(spec, PROXY if spec.network == "egress" else None)
        (folder / name).write_bytes(encode(short(plan)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
