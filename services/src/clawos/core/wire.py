"""A blocking client of the bus, for programs that a person waits for.

`clawos.core.bus` serves and calls with asyncio and dbus-fast, which take 100 ms to import on a small machine;
a login shell that runs one command has 80 ms in all. This client imports nothing beyond `socket`, calls,
waits for the reply, passes descriptors, and can be woken up by Ctrl-C. It serves nothing and hears no
signals.
"""

from __future__ import annotations

import os
import select
import socket
import time
from array import array

from clawos.core import errors, marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
_DBUS = "org.freedesktop.DBus"
_METHOD_CALL, _METHOD_RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE, _UNIX_FDS = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    9,
)
_MAX_FDS = 16


class Interrupted(errors.ClawError):
    """The person at the keyboard wants the call given up; the other side may still carry it out."""

    name = "Interrupted"


class _Message:
    __slots__ = ("body", "fds", "fields", "kind")

    def __init__(self, kind: int, fields: dict[int, Any], body: list[Any], fds: list[int]) -> None:
        self.kind, self.fields, self.body, self.fds = kind, fields, body, fds


class Wire:
    """One connection. `wake_fd`, when set and readable, makes a waiting call raise Interrupted."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._serial = 0
        self.wake_fd: int | None = None

    @classmethod
    def connect(cls, address: str = SYSTEM_BUS, timeout_s: float = 10) -> Wire:
        """Connect and say hello. Raises Unavailable."""
        try:
            connection = _open(address, timeout_s)
        except OSError as error:
            raise errors.Unavailable(
                f"no system bus: {error.strerror or error}", "see 'systemctl status dbus'", unit="dbus"
            ) from None
        wire = cls(connection)
        wire._authenticate(timeout_s)
        wire.call(_DBUS, "/org/freedesktop/DBus", _DBUS, "Hello", timeout_s=timeout_s)
        return wire

    def close(self) -> None:
        self._socket.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def room(
        self, name: str, member: str, *arguments: str, fds: tuple[int, ...] = (), timeout_s: float = 30
    ) -> list[Any]:
        """Call `member` of one of our services; strings first, then descriptors, which stay the caller's.

        Raises RemoteError, Unavailable or Interrupted. Returned descriptors are the caller's to close.
        """
        path = "/" + name.replace(".", "/")
        signature = "s" * len(arguments) + "h" * len(fds)
        return self.call(name, path, name, member, signature, [*arguments, *range(len(fds))], fds, timeout_s)

    def read_property(self, name: str, path: str, interface: str, member: str, timeout_s: float = 5) -> Any:
        """A property of any object on the bus."""
        arguments = [interface, member]
        (value,) = self.call(
            name, path, "org.freedesktop.DBus.Properties", "Get", "ss", arguments, timeout_s=timeout_s
        )
        return value

    def has_owner(self, name: str) -> bool:
        """Whether somebody holds this name now."""
        (answer,) = self.call(_DBUS, "/org/freedesktop/DBus", _DBUS, "NameHasOwner", "s", [name], timeout_s=5)
        return bool(answer)

    def can_start(self, name: str) -> bool:
        """Whether a call to this name would start its service."""
        (names,) = self.call(_DBUS, "/org/freedesktop/DBus", _DBUS, "ListActivatableNames", timeout_s=5)
        return name in names

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        fds: Sequence[int] = (),
        timeout_s: float = 30,
    ) -> list[Any]:
        """Call any method of anybody and wait for its reply."""
        self._serial += 1
        serial = self._serial
        fields: list[tuple[int, tuple[str, Any]]] = [
            (_PATH, ("o", path)),
            (_INTERFACE, ("s", interface)),
            (_MEMBER, ("s", member)),
            (_DESTINATION, ("s", destination)),
        ]
        if signature:
            fields.append((_SIGNATURE, ("g", signature)))
        if fds:
            fields.append((_UNIX_FDS, ("u", len(fds))))
        payload = marshal.pack(signature, body)
        message = marshal.pack("yyyyuua(yv)", [ord("l"), _METHOD_CALL, 0, 1, len(payload), serial, fields])
        message.extend(bytes(-len(message) % 8))
        self._send(bytes(message + payload), fds)
        deadline = time.monotonic() + timeout_s
        while True:
            reply = self._next_message(deadline, destination)
            if reply.kind in (_METHOD_RETURN, _ERROR) and reply.fields.get(_REPLY_SERIAL) == serial:
                break
            for fd in reply.fds:  # the answer to a call that was given up
                os.close(fd)
        if reply.kind == _ERROR:
            for fd in reply.fds:
                os.close(fd)
            raise errors.from_reply(destination, str(reply.fields.get(_ERROR_NAME)), reply.body)
        kinds = marshal.split(reply.fields.get(_SIGNATURE, ""))
        return [reply.fds[v] if kind == "h" else v for kind, v in zip(kinds, reply.body, strict=True)]

    def _authenticate(self, timeout_s: float) -> None:
        uid = str(os.getuid()).encode().hex().encode()
        # All in one write: the daemon answers line by line, and nothing here depends on the first answer.
        self._send(b"\0AUTH EXTERNAL " + uid + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n", ())
        deadline = time.monotonic() + timeout_s
        for expected in (b"OK ", b"AGREE_UNIX_FD"):
            while b"\r\n" not in self._buffer:
                self._receive(deadline, _DBUS)
            line, _, rest = bytes(self._buffer).partition(b"\r\n")
            self._buffer = bytearray(rest)
            if not line.startswith(expected):
                raise errors.Unavailable(
                    "the system bus refused us", "see 'systemctl status dbus'", unit="dbus"
                )

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds).tobytes())] if fds else []
        try:
            sent = self._socket.sendmsg([data], ancillary)
            self._socket.sendall(data[sent:])
        except OSError as error:
            raise self._gone(str(error)) from None

    def _next_message(self, deadline: float, destination: str) -> _Message:
        while True:
            size = self._message_size()
            if size and len(self._buffer) >= size:
                data = bytes(self._buffer[:size])
                del self._buffer[:size]
                return self._parse(data)
            self._receive(deadline, destination)

    def _message_size(self) -> int:
        if len(self._buffer) < 16:
            return 0
        order = "little" if self._buffer[0] == ord("l") else "big"
        body = int.from_bytes(self._buffer[4:8], order)  # type: ignore[arg-type]
        fields = int.from_bytes(self._buffer[12:16], order)  # type: ignore[arg-type]
        return 16 + fields + -fields % 8 + body

    def _parse(self, data: bytes) -> _Message:
        little = data[0] == ord("l")
        reader = marshal.Reader(data, little)
        _, kind, _, _, body_size, _ = (reader.value(code) for code in "yyyyuu")
        fields = dict(reader.value("a(yv)"))
        body = marshal.unpack(fields.get(_SIGNATURE, ""), data[len(data) - body_size :], little)
        count = fields.get(_UNIX_FDS, 0)
        fds, self._fds = self._fds[:count], self._fds[count:]
        return _Message(kind, fields, body, fds)

    def _receive(self, deadline: float, destination: str) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        if self.wake_fd is not None:
            poller.register(self.wake_fd, select.POLLIN)
        ready = [fd for fd, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000)]
        if self.wake_fd in ready:
            raise Interrupted("interrupted")
        if not ready:
            raise errors.not_answering(destination)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                65536, socket.CMSG_SPACE(_MAX_FDS * array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise self._gone(str(error)) from None
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array("i")
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
                self._fds.extend(received)
        if not data:
            raise self._gone("closed")
        self._buffer += data

    @staticmethod
    def _gone(why: str) -> errors.Unavailable:
        return errors.Unavailable(
            f"the system bus went away: {why}", "see 'systemctl status dbus'", unit="dbus"
        )


def _open(address: str, timeout_s: float) -> socket.socket:
    """Connect to the first address of a D-Bus address list that answers. Only Unix sockets: the bus is
    local."""
    failure = OSError(f"no usable address in {address!r}")
    for entry in address.split(";"):
        transport, _, rest = entry.partition(":")
        options = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        where = options.get("path") or ("\0" + options["abstract"] if "abstract" in options else "")
        if transport != "unix" or not where:
            continue
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(timeout_s)
            connection.connect(where)
            connection.settimeout(None)
        except OSError as error:
            connection.close()
            failure = error
            continue
        return connection
    raise failure
