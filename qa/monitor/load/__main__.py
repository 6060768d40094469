"""In the guest: offer events, and tell what became of them. Prints one JSON object.

    python3 -B -m qa.monitor.load OFFER FOLLOWED BESIDE open|socket|processes RATE SECONDS|NUMBER THREADS [--stopped]

--stopped: the consumer stands still meanwhile (SIGSTOP), and goes on afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from clawos.monitor.kinds import Kind
from qa.monitor.load import counters

KINDS = {"open": (Kind.OPEN,), "socket": (Kind.SOCKET,), "processes": (Kind.FORK, Kind.EXIT)}


def main(offer: str, followed: str, beside: str, act: str, *rest: str) -> dict[str, object]:
    stopped = "--stopped" in rest
    pid = counters.main_pid()
    before = {kind: counters.counts(kind) for kind in KINDS[act]}
    spent = counters.cpu_s(pid)
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        command = [offer, followed, beside, act, *(word for word in rest if word != "--stopped")]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    finally:
        if stopped:
            os.kill(pid, signal.SIGCONT)
    counters.wait_until_idle(pid)
    return {
        **told,
        "kinds": {
            kind.word: counters.counts(kind).since(before[kind])._asdict() for kind in KINDS[act]
        },
        "cpu_s": counters.cpu_s(pid) - spent,
        "peak_rss_mib": counters.peak_rss_mib(pid),
        "same_process": counters.main_pid() == pid,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
