"""In the place of the egress service: stand_in_proxy.py [ADDRESS PORT]. Answers who asked for what.

Without address it listens where systemd does for it.
"""

from __future__ import annotations

import socket
import sys

_FROM_SYSTEMD = 3


def answer(connection: socket.socket, caller: str) -> None:
    with connection:
        connection.settimeout(10)
        asked = connection.recv(65536).split(b"\r\n")[0].rpartition(b" ")[0].decode()
        body = f"{asked} from {caller}\n".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)


def main(*where: str) -> None:
    listener = (
        socket.create_server((where[0], int(where[1]))) if where else socket.socket(fileno=_FROM_SYSTEMD)
    )
    with listener:
        print("listening", flush=True)
        while True:
            connection, (caller, _) = listener.accept()
            try:
                answer(connection, caller)
            except OSError:
                continue  # it looked in and left


if __name__ == "__main__":
    main(*sys.argv[1:])
