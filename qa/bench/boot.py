"""Boot to login, to the first answer; memory at rest, by service."""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

from qa.vm.console import Console
from qa.vm.machine import Channel, fresh_guest

QUESTION = "how much memory is free?"
ASKS = 5
AS_USER = "runuser -u claw -- env HOME=/home/claw"
# Seconds from the start of clawsh to its first tool call, and to its end.
STOPWATCH = """
import subprocess, sys, time
start, call = time.monotonic(), None
clawsh = subprocess.Popen(["clawsh", "--json", "-c", sys.argv[1]], stdout=subprocess.PIPE)
for line in clawsh.stdout:
    if b"tool_call" in line and call is None:
        call = time.monotonic() - start
assert clawsh.wait() == 0
print(call, time.monotonic() - start)
"""
RUNNING = "systemctl list-units --type=service --state=running --plain --no-legend | cut -d' ' -f1"


def pss_mib(channel: Channel, unit: str) -> float:
    """Proportional set size of all processes of a unit, MiB."""
    cgroup = f"/sys/fs/cgroup/system.slice/{unit}"
    total_kib = channel.run(
        f"for p in $(cat {cgroup}/cgroup.procs {cgroup}/*/cgroup.procs 2>/dev/null); do "
        "awk '/^Pss:/ {print $2}' /proc/$p/smaps_rollup; done | awk '{s += $1} END {print s + 0}'"
    ).text
    return round(int(total_kib) / 1024, 1)


def measure() -> dict[str, object]:
    """Seconds are wall time of this machine, counted from the start of QEMU."""
    started = time.monotonic()
    with fresh_guest("bench", Path("build/image/clawos.raw")) as machine:
        console = Console(machine.guest.socket("console.sock"))
        console.expect(r"login: ", 600)
        login_s = time.monotonic() - started
        console.close()
        channel = machine.wait_for_channel()
        ask = f"su -l claw -c '{QUESTION}'"
        first = channel.run(ask, 300)
        first_answer_s = time.monotonic() - started
        if first.status != 0:
            raise SystemExit(f"bench: the first question failed: {first.stderr.decode()}")
        channel.run("systemctl is-system-running --wait; sleep 30", 400)
        startup = channel.run("systemd-analyze").text.splitlines()[0]
        used_mib = int(channel.run("free -m | awk '/^Mem/ {print $3}'").text)
        services = {unit: pss_mib(channel, unit) for unit in channel.run(RUNNING).text.split()}
        calls, turns, commands = [], [], []
        for _ in range(ASKS):
            call_s, turn_s = channel.run(f"{AS_USER} python3 -c '{STOPWATCH}' '{QUESTION}'", 300).text.split()
            calls.append(float(call_s))
            turns.append(float(turn_s))
            begin = time.monotonic()
            channel.run(f"{AS_USER} clawsh -c '!true'", 300)
            commands.append(time.monotonic() - begin)
        return {
            "accelerator": "kvm" if machine.kvm else "tcg",
            "to_login_s": round(login_s, 1),
            "to_first_answer_s": round(first_answer_s, 1),
            "systemd_analyze": re.sub(r"Startup finished in ", "", startup),
            "used_mib": used_mib,
            "pss_mib": services,
            "to_tool_call_in_guest_s": round(statistics.median(calls), 2),
            "to_answer_in_guest_s": round(statistics.median(turns), 2),
            "command_in_guest_s": round(statistics.median(commands), 2),
        }
