"""Runs as root on the host beside the sandbox: starts a program every fifth of a second, notes the gaps.

Makes /run/heartbeat.up when it beats. On SIGTERM writes {"beats": n, "longest_s": s} to
/run/heartbeat.json: the longest time between two beats.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PAUSE_S = 0.2
UP, RESULT = Path("/run/heartbeat.up"), Path("/run/heartbeat.json")


def main() -> None:
    beats, longest_s, last = 0, 0.0, time.monotonic()

    def end(_number: int, _frame: FrameType | None) -> None:
        told = {"beats": beats, "longest_s": round(max(longest_s, time.monotonic() - last), 2)}
        RESULT.write_text(json.dumps(told))
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    while True:
        subprocess.run(["/usr/bin/true"], check=True)
        now = time.monotonic()
        beats, longest_s, last = beats + 1, max(longest_s, now - last), now
        UP.touch()
        time.sleep(PAUSE_S)


main()
