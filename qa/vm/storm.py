"""The guest's side of a storm: calls of the isolator without a pause. Sent by the channel.

Argument: how many at once. SIGTERM asks for the end; it comes once some calls in a row ran, or a minute on.
Prints one JSON object: how many calls ran to their end, were refused, or were cut off; and of those that ran,
how many did after that was asked and after the last that did not.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time

from clawos.core.bus import Bus
from clawos.core.errors import ClawError

SPEC = json.dumps({"tool": "test.storm", "argv": ["/bin/sh", "-c", "exec sleep 0.05"]})
IN_A_ROW = 12
PATIENCE_S = 60
counts = {"ran": 0, "refused": 0, "cut off": 0, "since": 0}


def count(what: str) -> None:
    counts[what] += 1
    counts["since"] = counts["since"] + 1 if what == "ran" else 0


class End:
    """When to end: never, until it was asked for."""

    until = float("inf")

    def ask(self) -> None:
        self.until = time.monotonic() + PATIENCE_S
        counts["since"] = 0

    def __bool__(self) -> bool:
        return time.monotonic() > self.until or (self.until < float("inf") and counts["since"] >= IN_A_ROW)


async def calls(bus: Bus, end: End) -> None:
    while not end:
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            _, *streams = await bus.call("org.clawos.Isolator1", "Run", SPEC, fds=(nothing,))
        except ClawError:
            count("refused")
            await asyncio.sleep(0.05)
            continue
        finally:
            os.close(nothing)
        *_, result = await asyncio.gather(*(asyncio.to_thread(_read, fd) for fd in streams))
        count("ran" if result and json.loads(result)["exit_code"] == 0 else "cut off")


def _read(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


async def main(at_once: str) -> None:
    bus = await Bus.connect()
    end = End()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.ask)
    await asyncio.gather(*(calls(bus, end) for _ in range(int(at_once))))
    await bus.close()
    print(json.dumps(counts))


asyncio.run(main(*sys.argv[1:]))
