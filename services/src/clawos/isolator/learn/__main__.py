"""python3 -m clawos.isolator.learn CGROUP PROFILE: watch sandboxes from outside, then report on one. As root.

Prints `watching`, and the report once a line of standard input names the cgroup id of a call that is over.
Sandbox, filter and launcher are those of any other call: nothing is loosened to learn.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

from clawos.core.errors import ClawError
from clawos.core.names import POLICY_DIR
from clawos.core.parse import to_json
from clawos.isolator.config import Config
from clawos.isolator.learn.calls import Calls
from clawos.isolator.learn.report import Report, judged, report
from clawos.isolator.learn.watch import watch
from clawos.isolator.seccomp import profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES


class Unasked(ClawError):
    """Who wanted to know is gone."""

    name = "Unasked"


def learn(cgroup: Path, name: str, filters: Path, policies: Path) -> Report:
    """Watch until standard input says whom to report on. Raises ClawError."""
    names = {
        int(number): call for number, call in json.loads((filters / "syscalls.json").read_text()).items()
    }
    numbers = {call: number for number, call in names.items()}
    loaded = profile.load(policies, name, platform.machine())
    rules = {numbers[call]: rule for call, rule in loaded.items() if call in numbers}
    blob = (filters / f"{name}.bpf").read_bytes()
    calls = Calls(numbers["seccomp"], judged(rules))
    with watch(cgroup, calls) as watched:
        print("watching", flush=True)
        watched.until_readable(sys.stdin.fileno())
        lost = watched.end()
    asked = sys.stdin.readline()
    if not asked:
        raise Unasked("nobody named a call to report on")
    return report(name, calls.made(int(asked)), lost, blob, rules, names, ARCHITECTURES[platform.machine()])


def main(cgroup: str, name: str, filters: str = str(Config().filters), policies: str = "") -> int:
    directory = Path(policies) if policies else POLICY_DIR / "seccomp"
    try:
        print(to_json(learn(Path(cgroup), name, Path(filters), directory)))
    except ClawError as error:
        print(json.dumps({"error": {"name": type(error).name, "message": error.message, "hint": error.hint}}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
