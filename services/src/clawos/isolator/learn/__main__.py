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
from clawos.isolator.learn.report import Report, judged, report
from clawos.isolator.learn.watch import watch
from clawos.isolator.seccomp import profile
from clawos.isolator.seccomp.compiler import ARCHITECTURES


def learn(cgroup: Path, name: str, filters: Path, policies: Path) -> Report:
    """Watch until standard input says whom to report on. Raises ClawError."""
    names = {
        int(number): call for number, call in json.loads((filters / "syscalls.json").read_text()).items()
    }
    numbers = {call: number for number, call in names.items()}
    loaded = profile.load(policies, name, platform.machine())
    rules = {numbers[call]: rule for call, rule in loaded.items() if call in numbers}
    blob = (filters / f"{name}.bpf").read_bytes()
    with watch(cgroup, judged(rules)) as watched:
        print("watching", flush=True)
        wanted = int(sys.stdin.readline())
        counts = watched.counts(wanted)
        lost = watched.lost()
    return report(name, counts, lost, blob, rules, names, ARCHITECTURES[platform.machine()])


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
