"""Metrics over a Unix socket, by as much of HTTP as a scraper needs: curl --unix-socket … http://localhost/metrics"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from clawos.monitor.metrics import CONTENT_TYPE

log = logging.getLogger(__name__)

_FIRST = 3
"""sd_listen_fds(3)"""
_HEAD_BYTES_MAX = 8192
_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 8


class MetricsSocket:
    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
        self._server: asyncio.Server | None = None
        self._open = 0

    async def listen(self, listening: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=_HEAD_BYTES_MAX)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._open >= CONNECTIONS_MAX:
                return
            self._open += 1
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._answer(reader, writer)
            finally:
                self._open -= 1
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a peer that says nothing, or too much, or leaves
        finally:
            # Not in good order: a peer that does not read must not keep its place.
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].split()
        if len(words) != 3 or words[0] not in (b"GET", b"HEAD"):
            status, body = "405 Method Not Allowed", b"only GET\n"
        elif words[1].split(b"?")[0] not in (b"/metrics", b"/"):
            status, body = "404 Not Found", b"there is only /metrics\n"
        else:
            status, body = "200 OK", self._text().encode()
        lines = (
            f"HTTP/1.1 {status}",
            f"Content-Type: {CONTENT_TYPE}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if words[:1] == [b"HEAD"] else body))
        await writer.drain()
        writer.write_eof()
        await reader.read()  # until the peer has it all, and leaves


def handed_over() -> socket.socket | None:
    """The socket that systemd listens on for us; None where it does not."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    os.set_inheritable(_FIRST, False)
    made = socket.socket(fileno=_FIRST)
    made.setblocking(False)
    return made
