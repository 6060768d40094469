"""`make run` and `make vm`: boot the image in QEMU and use it.

    python -m qa.vm console            a terminal on the serial console; Ctrl-A X leaves
    python -m qa.vm run TEXT           log in as the ordinary user, run `clawsh -c TEXT`, power off
    python -m qa.vm root COMMAND       run a command line as root over the harness channel
    python -m qa.vm stop               stop the guest that KEEP=1 left running

From the environment, as make passes them: LOCKDOWN=none|integrity|confidentiality, KEEP=1 (leave it running),
MEMORY=MIB, SHARE=FOLDER (seen in the guest as a read-only disk: mount /dev/disk/by-label/share /mnt).
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from qa.vm.machine import Machine, VmError, harness_credentials
from qa.vm.qemu import Guest

LOCKDOWNS = ("none", "integrity", "confidentiality")
DIRECTORY = Path("build/vm")


def say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


def guest_for(lockdown: str, *, console: str = "file", unattended: bool) -> Guest:
    if lockdown not in LOCKDOWNS:
        raise VmError(f"LOCKDOWN={lockdown} is none of {', '.join(LOCKDOWNS)}")
    image = Path(os.environ.get("IMAGE") or "build/image/clawos.raw")
    if not image.exists():
        raise VmError(f"no image at {image}; run 'make image'")
    # One folder a lockdown mode: they may run side by side. The terminal's disk is kept between runs.
    directory = DIRECTORY / (f"console-{lockdown}" if console == "stdio" else lockdown)
    credentials = harness_credentials() if unattended else {}
    guest = Guest(directory.absolute(), image, credentials, lockdown, console)
    if memory := os.environ.get("MEMORY"):
        if not memory.isdigit() or int(memory) < 512:
            raise VmError(f"MEMORY={memory} is no number of MiB from 512 on")
        guest.memory_mib = int(memory)
    if share := os.environ.get("SHARE"):
        guest.share = Path(share)
    return guest


def boot(lockdown: str) -> tuple[Machine, bool]:
    """Start the guest, or take the one that runs. Returns it and whether it is new."""
    machine = Machine(guest_for(lockdown, unattended=True))
    if machine.pid is not None:
        return machine, False
    shutil.rmtree(machine.guest.directory, ignore_errors=True)
    say(f"booting ({'KVM' if machine.kvm else 'no usable KVM: TCG, slow'}; lockdown={lockdown})")
    machine.start()
    return machine, True


def execute(command: str, lockdown: str, keep: bool) -> int:
    started = time.monotonic()
    machine, new = boot(lockdown)
    try:
        channel = machine.wait_for_channel()
        if new:
            channel.run("systemctl is-system-running --wait >/dev/null", 300)
            say(f"up after {time.monotonic() - started:.0f} s")
        return channel.run(command, show=True).status
    finally:
        if not keep:
            machine.stop()


def console(lockdown: str) -> int:
    guest = guest_for(lockdown, console="stdio", unattended=False)
    machine = Machine(guest)
    disk = guest.path("disk.qcow2")
    if disk.exists() and guest.image.stat().st_mtime > disk.stat().st_mtime:
        # a disk made over another image would be neither the old system nor the new
        shutil.rmtree(guest.directory)
    say(f"booting ({'KVM' if machine.kvm else 'no usable KVM: TCG, about a minute'}); Ctrl-A X leaves")
    machine.start()
    return machine.foreground.wait()


def main() -> int:
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="make vm", description=__doc__, formatter_class=formatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("console")
    commands.add_parser("stop")
    commands.add_parser("run").add_argument("text")
    commands.add_parser("root").add_argument("command")
    arguments = parser.parse_args()
    lockdown = os.environ.get("LOCKDOWN") or "integrity"
    keep = os.environ.get("KEEP", "") not in ("", "0")
    try:
        match arguments.what:
            case "console":
                return console(lockdown)
            case "run":
                command = f"exec su -l claw -c {shlex.quote(arguments.text)}"
                return execute(command, lockdown, keep)
            case "root":
                return execute(arguments.command, lockdown, keep)
            case _:
                for mode in LOCKDOWNS:
                    machine = Machine(Guest((DIRECTORY / mode).absolute(), Path()))
                    if machine.pid is not None:
                        machine.stop()
                        say(f"stopped ({mode})")
                return 0
    except (VmError, OSError, subprocess.CalledProcessError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


sys.exit(main())
