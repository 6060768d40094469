"""The isolator over a real bus: from a call to its first byte, calls a second, memory over many calls."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clawos.core.bus import Bus
from clawos.core.errors import ClawError
from clawos.isolator.config import ROOM
from qa.bench.peers.rounds import summary
from qa.bench.peers.spawner import ArmFailed

# Any peer may do anything: the real policy is in the image.
_BUS = """<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context='default'><allow own='*'/>
<allow send_destination='*'/><allow receive_sender='*'/></policy></busconfig>"""
# The service's own program; without cgroups only where the machine has none to give.
_SERVER = """
import runpy
from clawos.isolator.cgroup import Cgroups
async def none(*_): return None
Cgroups.claim = none
runpy.run_module("clawos.isolator", run_name="__main__")
"""
_READY_S = 30


@dataclass(frozen=True)
class Served:
    bus: Bus
    pid: int
    daemon_pid: int


@contextmanager
def _started(scratch: Path, settings: dict[str, str]) -> Iterator[tuple[str, int, int]]:
    """A bus and the service on it: the address, the service's process and the bus's."""
    socket = scratch / "bus"
    (scratch / "bus.conf").write_text(_BUS.format(socket=socket))
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
    (scratch / "isolator.toml").write_text("".join(lines))
    address = f"unix:path={socket}"
    environment = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": address, "CLAWOS_CONFIG_DIR": str(scratch)}
    processes = []
    try:
        daemon = ["dbus-daemon", f"--config-file={scratch}/bus.conf", "--nofork", "--print-address=1"]
        with (scratch / "service.log").open("wb") as log:
            processes.append(subprocess.Popen(daemon, stdout=subprocess.PIPE, stderr=log))
            assert processes[0].stdout is not None
            processes[0].stdout.readline()
            server = [sys.executable, "-c", _SERVER]
            processes.append(subprocess.Popen(server, env=environment, stderr=log))
        yield address, processes[1].pid, processes[0].pid
    finally:
        for process in reversed(processes):
            process.terminate()
            process.communicate(timeout=_READY_S)


@asynccontextmanager
async def own(scratch: Path, settings: dict[str, str]) -> AsyncIterator[Served]:
    """The service on a bus of its own, as root and without cgroups."""
    with _started(scratch, settings) as (address, pid, daemon_pid):
        bus = await Bus.connect(address)
        await _until_it_answers(bus)
        yield Served(bus, pid, daemon_pid)
        await bus.close()


@asynccontextmanager
async def installed() -> AsyncIterator[Served]:
    """The machine's own, as systemd runs it."""
    bus = await Bus.connect()
    await _until_it_answers(bus)  # which also starts it
    yield Served(bus, _main_pid(ROOM.unit), _main_pid("dbus.service"))
    await bus.close()


def _main_pid(unit: str) -> int:
    show = ["systemctl", "show", "--property=MainPID", "--value", unit]
    return int(subprocess.run(show, capture_output=True, check=True).stdout)


async def _until_it_answers(bus: Bus) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            await bus.call(ROOM.bus_name, "Status")
            return
        except ClawError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _run(bus: Bus, spec: str, stdin: int) -> tuple[int, int, int]:
    _, stdout, stderr, result = await bus.call(ROOM.bus_name, "Run", spec, fds=(stdin,))
    return stdout, stderr, result


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb", buffering=0) as file:
        return file.readall()


async def latency(served: Served, spec: str, calls: int, pause_s: float = 0.0) -> dict[str, dict[str, float]]:
    """One call after the other. Reading blocks: nothing else is to be done here meanwhile."""
    stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    taken: dict[str, list[float]] = {"to_reply": [], "to_first_byte": [], "to_result": []}
    for number in range(-5, calls):
        await asyncio.sleep(pause_s)
        started = time.perf_counter()
        stdout, stderr, result = await _run(served.bus, spec, stdin)
        replied = time.perf_counter()
        if not os.read(stdout, 1):
            raise ArmFailed(f"the call put out nothing but {_read_all(stderr)!r}")
        first = time.perf_counter()
        _read_all(stdout)
        _read_all(stderr)
        _check(_read_all(result))
        ended = time.perf_counter()
        if number >= 0:
            for name, moment in zip(taken, (replied, first, ended), strict=True):
                taken[name].append((moment - started) * 1000)
    os.close(stdin)
    return {name: summary(values) for name, values in taken.items()}


def _check(line: bytes) -> None:
    result = json.loads(line)
    if result["exit_code"] != 0:
        raise ArmFailed(f"a call over the bus ended with {result}")


async def _to_the_end(served: Served, spec: str, stdin: int) -> None:
    """A call by its result alone, without a thread for each."""
    stdout, stderr, result = await _run(served.bus, spec, stdin)
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(result, readable.set)
    await readable.wait()
    loop.remove_reader(result)
    _check(_read_all(result))
    os.close(stdout)
    os.close(stderr)


async def calls_per_s(served: Served, spec: str, in_flight: int, calls: int) -> float:
    stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    async def worker() -> None:
        for _ in range(calls // in_flight):
            await _to_the_end(served, spec, stdin)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed = time.perf_counter() - started
    os.close(stdin)
    return calls // in_flight * in_flight / elapsed


def footprint(pid: int) -> dict[str, int]:
    """What a process holds now."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {words[0].rstrip(":"): int(words[1]) for line in rollup[1:] if (words := line.split())}
    return {
        "rss_kib": sizes["Rss"],
        "pss_kib": sizes["Pss"],
        "anonymous_kib": sizes["Anonymous"],
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "children": len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
    }


async def memory(served: Served, spec: str, calls: int, every: int) -> list[dict[str, int]]:
    """The service's own memory, descriptors and threads over many calls, four at a time."""
    rows = [{"calls": 0, **footprint(served.pid)}]
    for done in range(every, calls + 1, every):
        await calls_per_s(served, spec, 4, every)
        await asyncio.sleep(0.5)  # what a call leaves to do is done
        rows.append({"calls": done, **footprint(served.pid)})
    return rows
