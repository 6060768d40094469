"""The guest's side of the judge: do acts, each in a cgroup of its own. Sent by the channel.

Standard input: {"parent": a followed cgroup, "acts": […]} as in the tables. Prints one JSON object a line:
what came of an act, and in which cgroup. What stands around an act runs in the harness's own cgroup.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

CGROUPS = Path("/sys/fs/cgroup")
FOLDER = Path("/tmp/qa")
TIMEOUT_S = 60
BASH = ["/bin/bash", "-eu", "-o", "pipefail"]
SCRIPT = Path("/run/qa-act")
"""An act is run from this file: on a command line, its words alone would give it away."""


def main() -> None:
    told = json.load(sys.stdin)
    for act in told["acts"]:
        print(json.dumps(perform(CGROUPS / told["parent"].strip("/"), act)), flush=True)


def perform(parent: Path, act: dict[str, Any]) -> dict[str, Any]:
    folder = FOLDER / act["id"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cgroup = parent / act["id"]
    cgroup.mkdir()
    environment = {"PATH": "/usr/bin:/usr/sbin", "HOME": "/root", "LANG": "C.UTF-8", "D": str(folder)}
    result = {"id": act["id"], "cgroup": cgroup.stat().st_ino, "happened": False}
    try:
        said = beside(act["before"], environment)
        if said is not None:
            return result | {"why": f"before: {said}"}
        result["started_ns"] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        status = inside(cgroup, act["script"], environment, folder)
        result["ended_ns"] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        said = beside(act["check"], environment | {"STATUS": str(status)})
        if said is None:
            return result | {"happened": True}
        errors = (folder / "err").read_text(errors="replace").strip()[-300:]
        return result | {"why": f"status {status}; {errors}; {said}"}
    finally:
        (cgroup / "cgroup.kill").write_text("1")
        beside(act["after"], environment)
        shutil.rmtree(folder, ignore_errors=True)
        for _ in range(100):
            with contextlib.suppress(OSError):
                cgroup.rmdir()
                break
            time.sleep(0.05)


def inside(cgroup: Path, script: str, environment: dict[str, str], folder: Path) -> int:
    """Run the act in its cgroup. Returns its exit status."""
    SCRIPT.write_text(script)
    with (
        (folder / "out").open("wb") as out,
        (folder / "err").open("wb") as err,
        (cgroup / "cgroup.procs").open("wb", buffering=0) as procs,
    ):
        done = subprocess.Popen(
            [*BASH, SCRIPT],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=lambda: _enter(procs),
        )
        try:
            return done.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return 124


def _enter(procs: IO[bytes]) -> None:
    procs.write(b"0")


def beside(script: str, environment: dict[str, str]) -> str | None:
    """Run what belongs to an act, where nobody judges. Returns what it complained of; None: it is well."""
    if not script:
        return None
    # its listeners hold these open: a file, not a pipe that would have to end
    with (FOLDER / "beside").open("w+b") as said:
        done = subprocess.run(
            [*BASH, "-c", script],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        said.seek(0)
        text = said.read().decode(errors="replace").strip()[-300:]
    return None if done.returncode == 0 else f"status {done.returncode}; {text}"


main()
