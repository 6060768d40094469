"""In the guest: offer events, and tell what became of them. Prints one JSON object.

    python3 -B -m qa.load OFFER [--stopped] WORD…

The words are the arguments of `offer`. --stopped: the consumer stands still meanwhile, and then goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from clawos.monitor.kinds import Kind
from qa.load import counters

KINDS = {"open": (Kind.OPEN,), "socket": (Kind.SOCKET,), "processes": (Kind.FORK, Kind.EXIT)}


def main(offer: str, *words: str) -> dict[str, object]:
    stopped = words[0] == "--stopped"
    words = words[stopped:]
    act = words[2]
    pid = counters.main_pid()
    before = {kind: counters.counts(kind) for kind in KINDS[act]}
    spent = counters.cpu_s(pid)
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        done = subprocess.run([offer, *words], stdout=subprocess.PIPE, check=True)
    finally:
        if stopped:
            os.kill(pid, signal.SIGCONT)
    counters.wait_until_idle(pid)
    return {
        **json.loads(done.stdout),
        "kinds": {kind.word: counters.counts(kind).since(before[kind])._asdict() for kind in KINDS[act]},
        "cpu_s": counters.cpu_s(pid) - spent,
        "peak_rss_mib": counters.peak_rss_mib(pid),
        "same_process": counters.main_pid() == pid,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
