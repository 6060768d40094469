"""Boot to login, to the first answer; memory at rest, by service."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import time
from pathlib import Path

from qa.vm.console import Console
from qa.vm.machine import Channel, Machine, harness_credentials
from qa.vm.qemu import Guest

QUESTION = "how much memory is free?"
ASKS = 5
AS_USER = "runuser -u claw -- env HOME=/home/claw"
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
    directory = Path("build/vm/bench").absolute()
    shutil.rmtree(directory, ignore_errors=True)
    credentials = harness_credentials() | {"passwd.hashed-password.claw": b"!*"}
    machine = Machine(Guest(directory, Path("build/image/clawos.raw"), credentials))
    started = time.monotonic()
    machine.start()
    try:
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
        turns, calls, to_call = [], [], []
        for _ in range(ASKS):
            begin = time.monotonic()
            text = channel.run(
                f"runuser -u claw -- env HOME=/home/claw clawsh --json -c '{QUESTION}'", 300
            ).text
            turns.append(time.monotonic() - begin)
            events = [json.loads(line) for line in text.splitlines()]
            done = [e for e in events if e["type"] == "done"]
            to_call += [e["model_s"] for e in done if "model_s" in e]
            begin = time.monotonic()
            channel.run(f"{AS_USER} clawsh -c '!true'", 300)
            calls.append(time.monotonic() - begin)
        return {
            "accelerator": "kvm" if machine.kvm else "tcg",
            "to_login_s": round(login_s, 1),
            "to_first_answer_s": round(first_answer_s, 1),
            "systemd_analyze": re.sub(r"Startup finished in ", "", startup),
            "used_mib": used_mib,
            "pss_mib": services,
            "ask_in_guest_s": round(statistics.median(turns), 2),
            "command_in_guest_s": round(statistics.median(calls), 2),
            "model_in_guest_s": round(statistics.median(to_call), 2) if to_call else None,
        }
    finally:
        machine.stop()
