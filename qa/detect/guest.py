"""The judge's ways into the guest: acts done, alerts and counters read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qa.detect.score import LATEST_S, Alert, Verdict, judge
from qa.detect.table import Act, load
from qa.vm.machine import Output

Run = Callable[..., Output]
BUS = "busctl -j call org.clawos.Monitor1 /org/clawos/Monitor1 org.clawos.Monitor1"
_KEPT = 1000
"""As many alerts as the monitor hands out."""


def put(root: Run, path: str, text: str) -> None:
    done = root(f"cat >{path} <<'END OF FILE'\n{text}\nEND OF FILE")
    assert done.status == 0, done.stderr


def perform(root: Run, acts: Sequence[Act], parent: str) -> dict[str, dict[str, Any]]:
    """Do the acts, one after another. Returns what came of each, by its id."""
    put(root, "/run/qa-perform.py", Path(__file__).with_name("perform.py").read_text())
    put(root, "/run/qa-acts.json", msgspec.json.encode({"parent": parent, "acts": acts}).decode())
    done = root(
        "python3 -I /run/qa-perform.py </run/qa-acts.json; rm /run/qa-perform.py /run/qa-acts.json", 1800
    )
    runs = {run["id"]: run for run in map(json.loads, done.text.splitlines())}
    assert set(runs) == {act.id for act in acts}, done.stderr[-2000:]
    return runs


def verdicts(root: Run, acts: Sequence[Act], parent: str, at_once: int = 25) -> list[Verdict]:
    """Do the acts and judge them; so few between two looks that the monitor still has all their alerts."""
    found = []
    for first in range(0, len(acts), at_once):
        some = acts[first : first + at_once]
        since = boot_ns(root)
        runs = perform(root, some, parent)
        time.sleep(LATEST_S)
        told = alerts(root)
        assert len(told) < _KEPT or told[0].time_ns < since, "the monitor has forgotten alerts already"
        found += [judge(act, runs[act.id], told) for act in some]
    return found


def alerts(root: Run, severity: str = "info") -> list[Alert]:
    """What the monitor has found of late, of this severity and above; the oldest first."""
    told = _ask(root, f"""Alerts s '{{"limit": {_KEPT}, "severity": "{severity}"}}'""")
    return [
        Alert(
            one["rule"],
            one["severity"],
            tuple(one["attack"]),
            one["evidence"][-1]["cgroup"],
            one["time_ns"],
            one["message"],
        )
        for one in told
    ]


def counted(root: Run, name: str = "clawos_events_total") -> dict[str, int]:
    """A counter of the monitor's, by its one label."""
    text = str(_ask(root, "Metrics", is_json=False))
    found = re.findall(rf'^{name}{{[^}}]*?"([^"]*)"}} ([0-9.e+]+)$', text, re.MULTILINE)
    return {label: int(float(value)) for label, value in found}


def boot_ns(root: Run) -> int:
    """Since boot, as events tell their time."""
    return int(root("python3 -I -c 'import time; print(time.clock_gettime_ns(time.CLOCK_BOOTTIME))'").text)


def act_is_found(root: Run, parent: str) -> bool:
    """Whether an act that the monitor must find is found now."""
    act = next(act for act in load("falco").act if act.id == "ReadSensitiveFileUntrusted")
    (verdict,) = verdicts(root, [act], parent)
    assert verdict.happened, verdict.why
    return bool(verdict.fitting)


def _ask(root: Run, method: str, *, is_json: bool = True) -> Any:
    done = root(f"{BUS} {method}")
    assert done.status == 0, done.stderr
    (answer,) = json.loads(done.text)["data"]
    return json.loads(answer) if is_json else answer
