"""A blocking client of the bus, for programs that a person waits for.

`clawos.core.bus` serves and calls with asyncio and dbus-fast, which take 100 ms to import on a small machine;
a login shell that runs one command has 80 ms in all. Here jeepney speaks the protocol, and what it lacks is
added: our errors, a time limit for each step, being woken up by Ctrl-C, descriptors that no command inherits.
This client serves nothing and hears no signals.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import contextmanager

from jeepney import (
    AuthenticationError,
    DBusAddress,
    DBusErrorResponse,
    FileDescriptor,
    HeaderFields,
    new_method_call,
)
from jeepney.bus import get_connectable_addresses
from jeepney.io.blocking import DBusConnection, prep_socket
from jeepney.wrappers import unwrap_msg

from clawos.core import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from jeepney import Message

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
_DBUS = "org.freedesktop.DBus"


class Interrupted(errors.ClawError):
    """The person at the keyboard wants the call given up; the other side may still carry it out."""

    name = "Interrupted"


class Wire:
    """One connection. `wake_fd`, when set and readable, makes a waiting call raise Interrupted."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    @classmethod
    def connect(cls, address: str = SYSTEM_BUS, timeout_s: float = 10) -> Wire:
        """Connect and say hello. Raises Unavailable."""
        opened = _open(address, timeout_s)
        try:
            with _our_errors(_DBUS):
                return cls(_Connection(opened, timeout_s))
        except errors.ClawError:
            opened.close()
            raise

    @property
    def wake_fd(self) -> int | None:
        return self._connection.wake_fd

    @wake_fd.setter
    def wake_fd(self, fd: int | None) -> None:
        self._connection.wake_fd = fd

    def close(self) -> None:
        self._connection.close()

    def room(
        self, name: str, member: str, *arguments: str, fds: tuple[int, ...] = (), timeout_s: float = 30
    ) -> list[Any]:
        """Call `member` of one of our services; strings first, then descriptors, which stay the caller's.

        Raises RemoteError, Unavailable or Interrupted. Returned descriptors are the caller's to close.
        """
        path = "/" + name.replace(".", "/")
        signature = "s" * len(arguments) + "h" * len(fds)
        return self.call(name, path, name, member, signature, [*arguments, *fds], timeout_s)

    def read_property(self, name: str, path: str, interface: str, member: str, timeout_s: float = 5) -> Any:
        """A property of any object on the bus."""
        properties = "org.freedesktop.DBus.Properties"
        ((_, value),) = self.call(name, path, properties, "Get", "ss", [interface, member], timeout_s)
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
        timeout_s: float = 30,
    ) -> list[Any]:
        """Call any method of anybody and wait for its reply. A variant is a pair of signature and value."""
        address = DBusAddress(path, destination, interface)
        message = new_method_call(address, member, signature or None, tuple(body))
        with _our_errors(destination):
            values = unwrap_msg(self._connection.ask(message, timeout_s))
        return [_raw(value) for value in values]


def _raw(value: Any) -> Any:
    if isinstance(value, list):
        return [_raw(one) for one in value]
    return value.to_raw_fd() if isinstance(value, FileDescriptor) else value


class _Socket(socket.socket):
    """Receives descriptors that no command inherits, whoever forks meanwhile; jeepney asks for plain ones."""

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        return super().recvmsg(bufsize, ancbufsize, flags | socket.MSG_CMSG_CLOEXEC)


class _Connection(DBusConnection):  # type: ignore[misc]  # jeepney has no types
    """jeepney's connection, which can be woken up."""

    def __init__(self, opened: _Socket, timeout_s: float) -> None:
        self.wake_fd: int | None = None
        self._default_timeout_s = timeout_s  # jeepney's own "Hello", just below, names none
        super().__init__(opened, enable_fds=True)

    def receive(self, *, timeout: float | None = None) -> Message:
        """The next message. Raises TimeoutError or Interrupted."""
        deadline = time.monotonic() + (self._default_timeout_s if timeout is None else timeout)
        while True:
            try:
                return super().receive(timeout=0)
            except TimeoutError:  # nothing yet, or only the beginning, which jeepney keeps
                self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        if self.wake_fd is not None:
            poller.register(self.wake_fd, select.POLLIN)
        ready = [fd for fd, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000)]
        if self.wake_fd in ready:
            raise Interrupted("interrupted") from None
        if not ready:
            raise TimeoutError from None

    def ask(self, message: Message, timeout_s: float) -> Message:
        """Send a call and wait for its reply."""
        deadline = time.monotonic() + timeout_s
        serial = next(self.outgoing_serial)
        self.send(message, serial=serial)
        while True:
            answer = self.receive(timeout=deadline - time.monotonic())
            if answer.header.fields.get(HeaderFields.reply_serial) == serial:
                return answer
            for value in answer.body:  # the answer to a call that was given up
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, FileDescriptor):
                        one.close()


@contextmanager
def _our_errors(destination: str) -> Iterator[None]:
    try:
        yield
    except DBusErrorResponse as error:
        raise errors.from_reply(destination, str(error.name), list(error.data)) from None
    except TimeoutError:
        raise errors.not_answering(destination) from None
    except (OSError, RuntimeError) as error:  # the second: more descriptors than a message may carry
        raise errors.Unavailable(
            f"the system bus went away: {error}", "see 'systemctl status dbus'", unit="dbus"
        ) from None


def _open(address: str, timeout_s: float) -> _Socket:
    """Connect to the first address of a D-Bus address list that answers. Only Unix sockets: the bus is
    local."""
    why = f"no usable address in {address!r}"
    try:
        for where in get_connectable_addresses(address):
            try:
                return _Socket(fileno=prep_socket(where, enable_fds=True, timeout=timeout_s).detach())
            except OSError as error:
                why = error.strerror or str(error)
    except AuthenticationError:
        raise errors.Unavailable(
            "the system bus refused us", "see 'systemctl status dbus'", unit="dbus"
        ) from None
    except (ValueError, RuntimeError):
        pass  # the rest of the list is no address of a Unix socket
    raise errors.Unavailable(f"no system bus: {why}", "see 'systemctl status dbus'", unit="dbus")
