"""Run in the guest: what the XDP programs make of frames. Prints JSON.

xdp_frames.py real PROGRAM COUNTS    send each over a veth pair with the pinned program: name → counted
xdp_frames.py counts COUNTS          what was counted so far
xdp_frames.py run                    load the object once more, run it on each frame and on a flood
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, "/run")

from clawos.monitor import enforce, fill, protect, uplink
from clawos.monitor.libbpf import Object
from qa.monitor.frames import COUNTS, FRAMES
from qa.monitor.in_cgroup import BPF, LIBC, PINS, bpf, opened

OBJECT = Path("/usr/lib/clawos/ebpf/xdp.bpf.o")
_LOOK, _RUN = 1, 10


def processors() -> int:
    return int(Path("/sys/devices/system/cpu/possible").read_text().strip().split("-")[-1]) + 1


def packets(fd: int) -> dict[str, int]:
    count = processors()
    told = {}
    for number, name in enumerate(COUNTS):
        key = ctypes.create_string_buffer(struct.pack("=I", number), 4)
        value = ctypes.create_string_buffer(16 * count)
        bpf(_LOOK, struct.pack("=I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0))
        told[name] = sum(struct.unpack(f"={2 * count}Q", value.raw)[::2])
    return told


def changed(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def real(program: str, counts: str) -> dict[str, object]:
    """One end with the program, in a namespace of its own; the other sends."""
    commands = """ip netns add test-xdp
ip link add test-out type veth peer name test-in netns test-xdp
ip netns exec test-xdp sysctl -qw net.ipv6.conf.test-in.disable_ipv6=1
sysctl -qw net.ipv6.conf.test-out.disable_ipv6=1
ip -n test-xdp link set test-in up
ip link set test-out up"""
    for command in commands.splitlines():
        subprocess.run(command.split(), check=True, capture_output=True)
    try:
        namespace = os.open("/run/netns/test-xdp", os.O_RDONLY)
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        os.setns(namespace, os.CLONE_NEWNET)
        how = uplink.attach("test-in", PINS / program)
        again = uplink.attach("test-in", PINS / program)
        os.setns(here, os.CLONE_NEWNET)
        fd = opened(PINS / "monitor" / counts, 8)
        told: dict[str, object] = {"how": how, "again": again}
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind(("test-out", 0))
            for name, (frame, _) in FRAMES[program].items():
                before = packets(fd)
                sender.send(frame)
                told[name] = changed(before, packets(fd))
        return told
    finally:
        subprocess.run(["ip", "netns", "del", "test-xdp"], check=True)


def run_on(program: int, frame: bytes, repeat: int = 1) -> int:
    """The program's answer to a frame."""
    given = ctypes.create_string_buffer(frame, len(frame))
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIIIQQII", program, 0, len(frame), 0, ctypes.addressof(given), 0, repeat, 0), 128
    )
    if LIBC.syscall(BPF, _RUN, attributes, 128) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    answer: int = struct.unpack_from("=I", attributes.raw, 4)[0]
    return answer


def run() -> dict[str, object]:
    told: dict[str, object] = {}
    policy = enforce.load(protect.POLICY)
    with Object(OBJECT) as xdp:
        maps = xdp.maps()
        for entry in fill.xdp_entries(policy):
            maps[entry.map].update(entry.key, entry.value)
        for program in xdp.programs():
            fd = xdp.call("bpf_program__fd", program._handle)
            counts = maps[program.name.replace("_xdp", "_counts")].fd
            answers = {}
            for name, (frame, _) in FRAMES[program.name].items():
                before = packets(counts)
                answer = run_on(fd, frame)
                answers[name] = [answer, changed(before, packets(counts))]
            told[program.name] = answers
            # A thousand a second from here on, ten at once: of a hundred thousand at once few pass.
            pace = fill.PACE.pack(1_000_000, 10_000_000)
            if program.name == "egress_xdp":
                maps["egress_pace"].update(bytes(4), pace)
            else:
                maps["uplink_settings"].update(bytes(4), pace + struct.pack("=HHI", 32768, 60999, 0))
            floods = {}
            for name in ("ARP", "TCP answer"):
                if name in FRAMES[program.name]:
                    before = packets(counts)
                    run_on(fd, FRAMES[program.name][name][0], 100_000)
                    floods[name] = changed(before, packets(counts))
            told[f"{program.name} flood"] = floods
    return told


def main(what: str, *arguments: str) -> dict[str, object]:
    if what == "counts":
        return dict(packets(opened(PINS / "monitor" / arguments[0], 8)))
    return real(*arguments) if what == "real" else run()


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
