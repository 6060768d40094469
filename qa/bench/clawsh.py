"""How long a person waits for clawsh: start to prompt, and `clawsh -c '!true'`.

The agent is the tests' fake one on a private bus: what is measured is the shell.

qa/bench/clawsh.py [RUNS]        prints JSON: medians and 99th percentiles in milliseconds
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SERVICES = Path(__file__).parents[2] / "services"
FAKES = SERVICES / "tests/clawsh/fakes.py"
CLAWSH = [sys.executable, "-m", "clawos.clawsh"]
TIMEOUT_S = 60

_BUS = """<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context='default'><allow own='*'/>
<allow send_destination='*'/><allow receive_sender='*'/></policy></busconfig>"""


@contextmanager
def agent(directory: Path) -> Iterator[dict[str, str]]:
    """A bus with the tests' fake agent. Yields the environment for clawsh."""
    config, socket = directory / "bus.conf", directory / "socket"
    config.write_text(_BUS.format(socket=socket))
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(SERVICES / "src"),
        "HOME": str(directory),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}",
    }
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"], stdout=subprocess.PIPE
    )
    assert daemon.stdout is not None
    daemon.stdout.readline()
    fake = subprocess.Popen(
        [
            sys.executable,
            SERVICES / "tests/clawsh/fakes.py",
            f"unix:path={socket}",
            directory / "log",
            str(os.getuid()),
        ],
        env=environment,
        stdout=subprocess.PIPE,
    )
    assert fake.stdout is not None
    fake.stdout.readline()
    try:
        yield environment
    finally:
        for process in (fake, daemon):
            process.terminate()
            process.wait(10)


def command(environment: dict[str, str]) -> float:
    """Seconds of one `clawsh -c '!true'`."""
    start = time.perf_counter()
    subprocess.run([*CLAWSH, "-c", "!true"], env=environment, stdin=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def prompt(environment: dict[str, str]) -> float:
    """Seconds until the prompt stands and takes keys."""
    start = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(CLAWSH[0], CLAWSH, environment)
    seen = b""
    while b">" not in seen:
        ready, _, _ = select.select([terminal], [], [], TIMEOUT_S)
        if not ready:
            raise TimeoutError(f"no prompt, only {seen!r}")
        seen += os.read(terminal, 4096)
    taken = time.perf_counter() - start
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    return taken


def measure(
    once: Callable[[dict[str, str]], float], environment: dict[str, str], runs: int
) -> dict[str, float]:
    once(environment)  # the first run compiles and fills caches
    times = sorted(once(environment) * 1000 for _ in range(runs))
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    return {
        "median_ms": round(statistics.median(times), 1),
        "p99_ms": round(p99, 1),
        "min_ms": round(times[0], 1),
    }


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory() as directory, agent(Path(directory)) as environment:
        found = {
            name: measure(once, environment, runs)
            for name, once in (("command", command), ("prompt", prompt))
        }
    print(json.dumps({"runs": runs, **found}, indent=2))


if __name__ == "__main__":
    main()
