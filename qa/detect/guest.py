"""The judge's ways into the guest: a followed cgroup, acts done in it, alerts read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qa.detect.table import Act
from qa.vm.machine import Output

Run = Callable[..., Output]
PARENT = "/qa-detect"
"""A cgroup of the guest's, outside of all services."""


def put(root: Run, path: str, text: str) -> None:
    done = root(f"cat >{path} <<'END OF FILE'\n{text}\nEND OF FILE")
    assert done.status == 0, done.stderr


def perform(root: Run, acts: Sequence[Act], parent: str = PARENT) -> dict[str, dict[str, Any]]:
    """Do the acts, one after another. Returns what came of each, by its id."""
    put(root, "/run/qa-perform.py", Path(__file__).with_name("perform.py").read_text())
    put(root, "/run/qa-acts.json", msgspec.json.encode({"parent": parent, "acts": acts}).decode())
    done = root("python3 -I /run/qa-perform.py </run/qa-acts.json; rm /run/qa-perform.py /run/qa-acts.json", 1800)
    runs = {run["id"]: run for run in map(json.loads, done.text.splitlines())}
    assert set(runs) == {act.id for act in acts}, done.stderr[-2000:]
    return runs
