"""The bus boundary: the one place where Python meets D-Bus, for what we serve and for what we call.

A room's `interface.py` is an `Interface` whose async members are marked `@method` and annotated with the
D-Bus types below. Declared errors (`ClawError`) cross with name, sentence, hint and fields, as the body `sss`
of the D-Bus error; anything else becomes `org.clawos.Error.Internal` with an incident id, its details in the
journal.

Who may call is settled twice: by the bus policy file (per user), and by `caller()` inside a member.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import secrets
import typing
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from dbus_fast import BusType, Message, MessageType
from dbus_fast import introspection as intr
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusSignature
from dbus_fast.constants import ArgDirection
from dbus_fast.errors import DBusFastError
from dbus_fast.signature import SignatureTree

from clawos.core.errors import BadRequest, Busy, ClawError, Internal, Unavailable, from_reply
from clawos.core.parse import to_json

log = logging.getLogger(__name__)

Str = Annotated[str, DBusSignature("s")]
Fd = Annotated[int, DBusSignature("h")]
"""A file descriptor. One that arrives is the member's to close; one that is returned is closed once sent."""
Fds = Annotated[list[int], DBusSignature("ah")]
"""Several; only in what is returned. A message carries at most 16, by the limit of the system bus."""

_DBUS = "org.freedesktop.DBus"


@dataclass(frozen=True)
class Caller:
    """Who is on the other side of a call, by the bus daemon's word and not the caller's."""

    uid: int
    unique_name: str


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """The caller of the member that is running."""
    return _caller.get()


@dataclass(frozen=True)
class _Member:
    name: str
    call: Callable[..., Awaitable[Any]]
    arguments: tuple[tuple[str, str], ...]  # (name, D-Bus type)
    results: tuple[str, ...]

    @property
    def signature(self) -> str:
        return "".join(kind for _, kind in self.arguments)


def method[F: Callable[..., Awaitable[Any]]](function: F) -> F:
    """Mark an async member as a bus method; its bus name is its name in CamelCase."""
    function.__dict__["__bus_method__"] = True
    return function


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _dbus_type(annotation: Any) -> str:
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, DBusSignature):
            return extra.signature
    raise TypeError(f"{annotation!r} carries no D-Bus type")


def _member(call: Callable[..., Awaitable[Any]]) -> _Member:
    hints = typing.get_type_hints(call, include_extras=True)
    returned = hints.pop("return", type(None))
    if returned is type(None):
        results: tuple[str, ...] = ()
    elif typing.get_origin(returned) is tuple:
        results = tuple(_dbus_type(part) for part in typing.get_args(returned))
    else:
        results = (_dbus_type(returned),)
    arguments = tuple((name, _dbus_type(hint)) for name, hint in hints.items())
    name = "".join(part.capitalize() for part in call.__name__.split("_"))
    return _Member(name, call, arguments, results)


def _to_index(kind: str, value: Any, fds: list[int]) -> Any:
    """As the body of a message has it: a descriptor by its place in `fds`, where it is put."""
    if kind == "ah":
        return [_to_index("h", fd, fds) for fd in value]
    if kind == "h":
        fds.append(value)
        return len(fds) - 1
    return value


def _of_index(kind: str, value: Any, fds: list[int]) -> Any:
    if kind == "ah":
        return [fds[index] for index in value]
    return fds[value] if kind == "h" else value


class Interface:
    """Base of a room's bus face."""

    under_way_max: ClassVar[int] = 32
    """Calls of one peer that may be under way at a time; a shell has one or two."""
    signals: ClassVar[tuple[str, ...]] = ()
    """Names of signals, each with one string."""

    def __init__(self) -> None:
        self.members = {
            m.name: m
            for _, f in inspect.getmembers(self, inspect.iscoroutinefunction)
            if getattr(f, "__bus_method__", False)
            for m in [_member(f)]
        }

    def describe(self, name: str) -> str:
        """Introspection XML of this interface under the given bus interface name, docstrings included."""
        methods = [
            intr.Method(
                m.name,
                [intr.Arg(kind, ArgDirection.IN, name) for name, kind in m.arguments],
                [intr.Arg(kind, ArgDirection.OUT) for kind in m.results],
            )
            for m in self.members.values()
        ]
        signals = [intr.Signal(signal, [intr.Arg("s")]) for signal in self.signals]
        node = intr.Node.default()
        node.interfaces.append(intr.Interface(name, methods=methods, signals=signals))
        return node.tostring()


class Bus:
    """A connection that can serve one interface and call others."""

    def __init__(self, connection: MessageBus) -> None:
        self._connection = connection
        self._uids: dict[str, int] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._under_way: Counter[str] = Counter()
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        connection.add_message_handler(self._on_message)
        self._served: tuple[str, str, Interface] | None = None

    @classmethod
    async def connect(cls, address: str | None = None) -> Bus:
        """Connect to the system bus, or to the one at `address`. Raises Unavailable."""
        address = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")
        try:
            connection = await MessageBus(
                bus_address=address, bus_type=BusType.SYSTEM, negotiate_unix_fd=True
            ).connect()
        except (OSError, DBusFastError) as error:
            raise Unavailable(f"no system bus: {error}", "see 'systemctl status dbus'") from None
        bus = cls(connection)
        await bus._call_daemon(
            "AddMatch", "s", f"type='signal',sender='{_DBUS}',member='NameOwnerChanged',arg2=''"
        )
        return bus

    async def serve(self, name: str, path: str, interface: Interface) -> None:
        """Answer calls to `interface` at `path`, then claim the bus name. Raises Unavailable if taken."""
        self._served = (path, name, interface)
        do_not_queue = 4
        (answer,) = await self._call_daemon("RequestName", "su", name, do_not_queue)
        if answer not in (1, 4):
            raise Unavailable(f"the bus name {name} is taken", f"stop the other {name} first")

    def emit(self, signal: str, text: str) -> None:
        """Send a signal of the served interface to whoever listens, as far as the bus policy lets him.

        Before `serve` there is nobody of that name to listen to, and nothing is sent.
        """
        if self._served is None:
            return
        path, name, interface = self._served
        assert signal in interface.signals
        # What becomes of it is the bus's affair: a connection that is lost ends the service anyway.
        self._connection.send(Message.new_signal(path, name, signal, "s", [text]))

    def on_vanish(self, unique_name: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once when a peer leaves the bus. Returns a function that forgets the callback."""
        watchers = self._watchers.setdefault(unique_name, set())
        watchers.add(callback)
        return lambda: watchers.discard(callback)

    async def call(self, name: str, member: str, *arguments: str, fds: tuple[int, ...] = ()) -> list[Any]:
        """Call `member` of one of our services; strings first, then descriptors, which stay the caller's.

        Raises RemoteError with the service's own error name, or Unavailable when nobody answers.
        Returned descriptors are ours to close.
        """
        path = "/" + name.replace(".", "/")
        signature = "s" * len(arguments) + "h" * len(fds)
        return await self._send(name, path, name, member, signature, [*arguments, *range(len(fds))], fds)

    async def wait_closed(self) -> None:
        await self._connection.wait_for_disconnect()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._connection.disconnect()

    async def _call_daemon(self, member: str, signature: str, *body: Any) -> list[Any]:
        path = "/org/freedesktop/DBus"
        return await self._send(_DBUS, path, _DBUS, member, signature, list(body), ())

    async def _send(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: list[Any],
        fds: tuple[int, ...],
    ) -> list[Any]:
        try:
            reply = await self._connection.call(
                Message(
                    destination=destination,
                    path=path,
                    interface=interface,
                    member=member,
                    signature=signature,
                    body=body,
                    unix_fds=list(fds),
                )
            )
        except (EOFError, OSError) as error:
            raise Unavailable(f"the system bus went away: {error}", "see 'systemctl status dbus'") from None
        if reply is None:
            raise Unavailable("the system bus went away", "see 'systemctl status dbus'")
        if "h" in reply.signature:
            for fd in reply.unix_fds:
                os.set_inheritable(fd, False)  # dbus-fast receives them without close-on-exec
        if reply.message_type is MessageType.ERROR:
            raise from_reply(destination, reply.error_name or "", reply.body)
        if "h" not in reply.signature:
            return reply.body
        kinds = [kind.signature for kind in SignatureTree(reply.signature).types]
        return [_of_index(k, v, reply.unix_fds) for k, v in zip(kinds, reply.body, strict=True)]

    def _on_message(self, message: Message) -> bool:
        if message.message_type in (MessageType.METHOD_RETURN, MessageType.ERROR):
            return False
        accepted = message.message_type is MessageType.METHOD_CALL and self._accept(message)
        if not accepted:
            # Nobody else here will: descriptors of a message that is for no member must not pile up.
            _close_all(message.unix_fds)
        if message.message_type is MessageType.SIGNAL:
            self._notice_departure(message)
        return accepted

    def _notice_departure(self, message: Message) -> None:
        if message.member == "NameOwnerChanged" and message.sender == _DBUS and not message.body[2]:
            gone = message.body[0]
            self._uids.pop(gone, None)
            for callback in tuple(self._watchers.pop(gone, ())):
                callback()

    def _accept(self, message: Message) -> bool:
        """Take a call that is for the served interface; False leaves it to dbus-fast's standard answers."""
        if self._served is None:
            return False
        path, name, interface = self._served
        if message.path != path:
            return False
        if message.interface == "org.freedesktop.DBus.Introspectable":
            _close_all(message.unix_fds)
            self._reply(message, ("s",), [interface.describe(name)])
            return True
        if message.interface not in (name, None):
            return False
        sender = message.sender or ""
        if self._under_way[sender] >= interface.under_way_max:
            _close_all(message.unix_fds)
            self._reply_error(
                message,
                Busy(f"{interface.under_way_max} of your calls are under way", "wait for one of them to end"),
            )
            return True
        self._under_way[sender] += 1
        # Now and not in the task: dbus-fast gives messages without descriptors one shared empty list, and
        # puts the next message's descriptors into it.
        fds = list(message.unix_fds)
        task = asyncio.get_running_loop().create_task(self._answer(interface, message, fds))
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._under_way[sender] -= 1
            if not self._under_way[sender]:
                del self._under_way[sender]

        task.add_done_callback(over)
        return True

    async def _answer(self, interface: Interface, message: Message, fds: list[int]) -> None:
        """The error boundary: whatever a member does, one reply goes out, and never the text of a bug."""
        member = interface.members.get(message.member or "")
        unclaimed = fds
        try:
            if member is None or member.signature != message.signature:
                raise BadRequest(f"no method {message.member}({message.signature})", "see busctl introspect")
            named = [
                value for (_, kind), value in zip(member.arguments, message.body, strict=True) if kind == "h"
            ]
            if len(unclaimed) < len(set(named)):  # the bus daemon counts them, so it is most often our limit
                raise Busy(
                    "descriptors of the message did not arrive: Too many open files, or it carries too few",
                    "try again; see LimitNOFILE= of the service",
                )
            if sorted(named) != list(range(len(unclaimed))):
                raise BadRequest("the message carries other descriptors than its arguments name")
            _caller.set(Caller(await self._uid_of(message.sender or ""), message.sender or ""))
            arguments = [
                _of_index(kind, value, fds)
                for (_, kind), value in zip(member.arguments, message.body, strict=True)
            ]
            for fd in fds:
                os.set_inheritable(fd, False)  # dbus-fast receives them without close-on-exec
            unclaimed = []
            result = await member.call(*arguments)
            values = () if not member.results else result if len(member.results) > 1 else (result,)
            self._reply(message, member.results, list(values))
        except ClawError as error:
            self._reply_error(message, error)
        except Exception:
            incident = secrets.token_hex(4)
            log.exception("incident %s in %s", incident, message.member, extra={"CLAWOS_INCIDENT": incident})
            self._reply_error(
                message,
                Internal(
                    f"something went wrong inside {type(interface).__name__}",
                    f"see 'journalctl CLAWOS_INCIDENT={incident}'",
                    incident=incident,
                ),
            )
        finally:
            _close_all(unclaimed)

    async def _uid_of(self, unique_name: str) -> int:
        """A peer's calls go on in the order in which they came: the first asks, the next wait with it."""
        if unique_name not in self._uids:
            if unique_name not in self._asking:
                self._asking[unique_name] = asyncio.ensure_future(self._ask_uid(unique_name))
            await asyncio.shield(self._asking[unique_name])
        return self._uids[unique_name]

    async def _ask_uid(self, unique_name: str) -> None:
        try:
            (self._uids[unique_name],) = await self._call_daemon("GetConnectionUnixUser", "s", unique_name)
        finally:
            del self._asking[unique_name]

    def _reply(self, message: Message, kinds: tuple[str, ...], values: list[Any]) -> None:
        fds: list[int] = []
        body = [_to_index(k, v, fds) for k, v in zip(kinds, values, strict=True)]
        sent = self._connection.send(Message.new_method_return(message, "".join(kinds), body, fds))

        def close_ours(_: Any) -> None:
            for fd in fds:
                os.close(fd)

        sent.add_done_callback(close_ours)

    def _reply_error(self, message: Message, error: ClawError) -> None:
        reply = Message.new_error(message, error.bus_name, error.message)
        reply.signature = "sss"
        reply.body = [error.message, error.hint, to_json(error.fields)]
        self._connection.send(reply)
