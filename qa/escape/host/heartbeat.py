"""Runs as root on the host beside the sandbox: starts a program every fifth of a second, notes the gaps.

Makes /run/heartbeat.up when it beats. On SIGTERM writes {"beats": n, "longest_s": s} to
/run/heartbeat.json: the longest time between two beats.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType

PAUSE_S = 0.2
UP, RESULT = Path("/run/heartbeat.up"), Path("/run/heartbeat.json")


def main() -> None:
    beats, longest_s, last, is_over = 0, 0.0, time.monotonic(), False

    def end(_number: int, _frame: FrameType | None) -> None:
        # Not an exception: where it comes from here, somebody may swallow it.
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, end)
    while not is_over:
        # systemd's signal may end the program, too.
        subprocess.run(["/usr/bin/true"], check=False)
        now = time.monotonic()
        beats, longest_s, last = beats + 1, max(longest_s, now - last), now
        UP.touch()
        time.sleep(PAUSE_S)
    longest_s = max(longest_s, time.monotonic() - last)
    RESULT.write_text(json.dumps({"beats": beats, "longest_s": round(longest_s, 2)}))


main()
