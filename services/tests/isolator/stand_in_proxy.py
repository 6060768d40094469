"""In the place of the egress service: stand_in_proxy.py ADDRESS PORT. Answers who asked for what."""

from __future__ import annotations

import socket
import sys


def answer(connection: socket.socket, caller: str) -> None:
    with connection:
        asked = connection.recv(65536).split(b"\r\n")[0].rpartition(b" ")[0].decode()
        body = f"{asked} from {caller}\n".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)


def main(address: str, port: int) -> None:
    with socket.create_server((address, port)) as listener:
        print("listening", flush=True)
        while True:
            connection, (caller, _) = listener.accept()
            answer(connection, caller)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
