"""The guest's end of the harness channel. Never installed: it travels as a systemd credential at boot.

One JSON object a line each way over a virtio port. In: {"run": command line, "timeout_s": n}.
Out: {"out"|"err": base64}… then {"exit": status}. One command at a time; {"run": null} is a ping.
"""

import base64
import json
import os
import selectors
import signal
import subprocess
import time

PORT = "/dev/virtio-ports/clawos.harness"


def send(port: int, **message: object) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(port, data) :]


def run(port: int, command: str, timeout_s: float) -> int:
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )
    assert process.stdout
    assert process.stderr
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ, "out")
    selector.register(process.stderr, selectors.EVENT_READ, "err")
    deadline = time.monotonic() + timeout_s
    while selector.get_map():
        for key, _ in selector.select(max(0.0, min(1.0, deadline - time.monotonic()))):
            data = os.read(key.fd, 65536)
            if data:
                send(port, **{key.data: base64.b64encode(data).decode()})
            else:
                selector.unregister(key.fileobj)
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 124
        if process.poll() is not None and not selector.select(0.2):
            break  # a daemon it left behind may hold the pipes open for ever
    status = process.wait()
    return 128 - status if status < 0 else status


def main() -> None:
    port = os.open(PORT, os.O_RDWR | os.O_CLOEXEC)
    pending = b""
    send(port, ready=True)
    while True:
        data = os.read(port, 65536)
        if not data:
            time.sleep(0.2)  # nobody at the other end
            continue
        pending += data
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            try:
                request = json.loads(line)
            except ValueError:
                continue
            command = request.get("run")
            status = 0 if command is None else run(port, command, request.get("timeout_s", 600))
            send(port, exit=status, id=request.get("id"))


main()
