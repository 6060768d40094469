"""Our sandbox against its peers: beside the build, without cgroups; and in the image, with everything.

    python -m qa.bench sandbox
    python -m qa.bench sandbox-image

The measuring is in `peers/`; here it is brought to where it runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from qa.vm.machine import fresh_guest

HERE = Path("qa/bench/peers")
TOOLS = Path("build/bench/sandbox")
LAUNCHER = Path("services/src/clawos/isolator/launcher")
# Emulation is twenty times slower: fewer of everything, and still the same rounds for all arms.
IN_GUEST = ("--image", "--rounds", "30", "--calls", "40", "--memory-calls", "1000")
GUEST_TIMEOUT_S = 3600
# As in the service's unit, a cgroup of its own to make leaves in. All arms start as root, here and there.
UNIT = "systemd-run --quiet --pipe --wait --collect -p Delegate=yes -p DelegateSubgroup=supervisor"


NOTE = """`sandbox` is the build machine without cgroups: no arm has limits there. `sandbox-image` is the
guest with them. All arms start as root and run the same static program, one after another in rounds
whose order changes each time; times are from before the start to the end of what was started, in a real-
time class where `real_time` is True, so that other work on the machine counts less. `claw-launch` is
started by a small C program, as the peers are; `Launcher class` is the same as the service starts it, in
Python. `claw-python` runs a file that does nothing from its zygote, the other Python arms `python3 -c
pass`. `cpu_p50_ms` counts all processes of a call, but not systemd, which does systemd-run's work, nor
the kernel's threads, which take network namespaces down later. The table of protections is what a
program inside each arm found; whether there is a memory limit was tried by using twice the quota."""


def build() -> None:
    """The programs that measure, and for beside the build the launcher and filters as the image has them."""
    shutil.rmtree(TOOLS, ignore_errors=True)
    TOOLS.mkdir(parents=True)
    for name, files in {"spawner": ("spawner.c", "request.c"), "payload": ("payload.c",)}.items():
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"]
        subprocess.run(["musl-gcc", *flags, "-o", TOOLS / name, *(HERE / file for file in files)], check=True)
    subprocess.run(["make", "-s", "-C", LAUNCHER, f"OUT={(TOOLS / 'claw-launch').absolute()}"], check=True)
    zygote = f"PYTHON_OUT={(TOOLS / 'claw-python.so').absolute()}"
    subprocess.run(["make", "-s", "-C", LAUNCHER, "python", zygote], check=True)
    (TOOLS / "pass.py").write_text("pass\n")
    compiler = [sys.executable, "-m", "clawos.isolator.seccomp", "compile", "policies/seccomp", str(TOOLS)]
    subprocess.run(compiler, stdout=subprocess.DEVNULL, check=True)


def peers() -> Path:
    return Path(
        subprocess.run([HERE / "fetch"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    )


def beside_the_build() -> dict[str, object]:
    build()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "qa.bench.peers",
        "--tools",
        TOOLS.absolute(),
        "--peers",
        peers(),
    ]
    command += ["--launcher", (TOOLS / "claw-launch").absolute(), "--filters", TOOLS.absolute()]
    command += ["--zygote", (TOOLS / "claw-python.so").absolute()]
    command += ["--policies", Path("policies").absolute()]
    environment = os.environ | {"PYTHONPATH": f"services/src{os.pathsep}."}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return {"note": NOTE, **result}


def in_the_image() -> dict[str, object]:
    """On a disk of its own the guest gets the peers and the programs; the sandbox is the image's."""
    build()
    share = Path("build/bench/share")
    shutil.rmtree(share, ignore_errors=True)
    (share / "qa/bench").mkdir(parents=True)
    shutil.copytree(peers(), share / "peers", symlinks=True, ignore=shutil.ignore_patterns("share"))
    shutil.copytree(TOOLS, share / "tools")
    shutil.copytree(HERE, share / "qa/bench/peers", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("qa", "qa/bench"):
        shutil.copy(Path(package) / "__init__.py", share / package)
    with fresh_guest("bench-sandbox", Path("build/image/clawos.raw"), share=share) as machine:
        channel = machine.wait_for_channel()
        channel.run("systemctl is-system-running --wait; mount /dev/disk/by-label/share /mnt", 400)
        command = "python3 -B -m qa.bench.peers --tools /mnt/tools --peers /mnt/peers " + " ".join(IN_GUEST)
        done = channel.run(f"{UNIT} -E PYTHONPATH=/mnt {command}", GUEST_TIMEOUT_S)
        sys.stderr.buffer.write(done.stderr)
        if done.status != 0:
            raise SystemExit(
                f"bench: the sandbox benchmark failed in the guest: {done.stderr.decode()[-2000:]}"
            )
        result: dict[str, object] = json.loads(done.stdout)
        return {"note": NOTE, "accelerator": "kvm" if machine.kvm else "tcg", **result}
