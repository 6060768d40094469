"""The bus boundary, over a real private bus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import Message

from clawos.core.bus import Bus, Fd, Fds, Interface, Str, caller, method
from clawos.core.errors import BadRequest, Busy, RemoteError, Unavailable
from clawos.core.stream import Writer, read_json_lines

NAME = "org.clawos.Test1"

Connect = Callable[[], Awaitable[Bus]]


class Echo(Interface):
    signals = ("Told",)

    def __init__(self) -> None:
        super().__init__()
        self.closing: list[asyncio.Task[None]] = []
        self.began: list[str] = []

    @method
    async def begin(self, name: Str) -> None:
        self.began.append(name)

    @method
    async def echo(self, text: Str) -> Str:
        """Give the text back."""
        return text

    @method
    async def who(self) -> Str:
        return str(caller().uid)

    @method
    async def refuse(self) -> None:
        raise BadRequest("no such thing", "ask for another", thing="x")

    @method
    async def bug(self) -> None:
        raise KeyError("secret-text")

    @method
    async def stream(self, text: Str) -> tuple[Str, Fd]:
        fd, writer = await Writer.open()
        await writer.send_json({"type": "text", "text": text})
        await writer.close()
        return "id", fd

    @method
    async def several(self, count: Str) -> tuple[Fds, Str, Fds, Fd]:
        """Pipes, each with its number in it."""
        fds = []
        for number in range(int(count)):
            fd, writer = await Writer.open()
            await writer.send(str(number).encode())
            self.closing.append(asyncio.create_task(writer.close()))
            fds.append(fd)
        return fds[:2], "between", fds[2:-1], fds[-1]

    @method
    async def wait(self) -> None:
        await asyncio.sleep(3600)

    @method
    async def read(self, source: Fd) -> Str:
        with os.fdopen(source, "rb") as f:
            return f.read().decode()


@pytest.fixture
async def pair(connect: Connect) -> Bus:
    server = await connect()
    await server.serve(NAME, "/org/clawos/Test1", Echo())
    return await connect()


async def test_values_go_there_and_back(pair: Bus) -> None:
    assert await pair.call(NAME, "Echo", "höi") == ["höi"]


async def test_caller_is_named_by_the_daemon(pair: Bus) -> None:
    assert await pair.call(NAME, "Who") == [str(os.getuid())]


async def test_declared_error_crosses_whole(pair: Bus) -> None:
    with pytest.raises(RemoteError) as error:
        await pair.call(NAME, "Refuse")
    assert error.value.is_a(BadRequest)
    assert (error.value.message, error.value.hint, error.value.fields) == (
        "no such thing",
        "ask for another",
        {"thing": "x"},
    )


async def test_bug_crosses_as_incident_without_its_text(pair: Bus) -> None:
    with pytest.raises(RemoteError) as error:
        await pair.call(NAME, "Bug")
    assert error.value.error_name == "org.clawos.Error.Internal"
    assert "secret-text" not in error.value.message + error.value.hint
    assert len(str(error.value.fields["incident"])) == 8


async def test_wrong_signature_is_refused(pair: Bus) -> None:
    with pytest.raises(RemoteError, match="no method Echo"):
        await pair.call(NAME, "Echo")


async def test_streams_travel_as_descriptors(pair: Bus) -> None:
    _, fd = await pair.call(NAME, "Stream", "hello")
    assert [e async for e in read_json_lines(fd)] == [{"type": "text", "text": "hello"}]


async def test_several_descriptors_come_in_their_places(pair: Bus) -> None:
    """As many as the system bus lets a message carry."""
    first, between, more, last = await pair.call(NAME, "Several", "16")
    assert (len(first), between, len(more)) == (2, "between", 13)
    for number, fd in enumerate([*first, *more, last]):
        assert not os.get_inheritable(fd)
        with os.fdopen(fd, "rb") as pipe:
            assert await asyncio.to_thread(pipe.read) == str(number).encode()
    first, _, more, last = await pair.call(NAME, "Several", "3")
    assert more == []
    for fd in (*first, last):
        os.close(fd)


async def test_descriptors_can_be_sent(pair: Bus) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"payload")
    os.close(write_fd)
    assert await pair.call(NAME, "Read", fds=(read_fd,)) == ["payload"]
    os.close(read_fd)


async def test_nobody_there_names_the_unit(connect: Connect) -> None:
    client = await connect()
    with pytest.raises(Unavailable) as error:
        await client.call("org.clawos.Nobody1", "Anything")
    assert error.value.fields["unit"] == "clawos-nobody"


async def test_vanished_peer_is_noticed(connect: Connect) -> None:
    server, client = await connect(), await connect()
    gone = asyncio.Event()
    assert client._connection.unique_name
    server.on_vanish(client._connection.unique_name, gone.set)
    await client.close()
    await asyncio.wait_for(gone.wait(), 5)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def send_raw(bus: Bus, **changes: object) -> None:
    """A call with one descriptor that no member will claim."""
    null = os.open("/dev/null", os.O_RDONLY)
    fields: dict[str, object] = {
        "destination": NAME,
        "path": "/org/clawos/Test1",
        "interface": NAME,
        "member": "Echo",
        "signature": "s",
        "body": ["x"],
    }
    try:
        await bus._connection.call(Message(**(fields | changes), unix_fds=[null] * 4))  # type: ignore[arg-type]
    finally:
        os.close(null)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"path": "/elsewhere"},
        {"interface": "org.freedesktop.DBus.Peer", "member": "Ping", "signature": "", "body": []},
        {
            "interface": "org.freedesktop.DBus.Introspectable",
            "member": "Introspect",
            "signature": "",
            "body": [],
        },
        {"member": "Read", "signature": "h", "body": [0]},
        {"member": "Read", "signature": "h", "body": [9]},
    ],
)
async def test_descriptors_that_nobody_claims_are_closed(pair: Bus, changes: dict[str, object]) -> None:
    await send_raw(pair, **changes)
    before = open_descriptors()
    for _ in range(5):
        await send_raw(pair, **changes)
    assert open_descriptors() == before


async def test_a_peers_calls_begin_in_the_order_in_which_they_came(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those too that come while the daemon is still asked who he is, however long that takes."""
    echo, server, delays = Echo(), await connect(), iter((0.2, 0.0))
    await server.serve(NAME, "/org/clawos/Test1", echo)
    ask = server._call_daemon

    async def slowly(*what: Any) -> list[Any]:
        await asyncio.sleep(next(delays))
        return await ask(*what)

    peer = await connect()
    monkeypatch.setattr(server, "_call_daemon", slowly)
    await asyncio.gather(peer.call(NAME, "Begin", "first"), peer.call(NAME, "Begin", "second"))
    assert echo.began == ["first", "second"]


async def test_one_peer_cannot_pile_up_calls(pair: Bus) -> None:
    calls = [asyncio.create_task(pair.call(NAME, "Wait")) for _ in range(Interface.under_way_max + 1)]
    done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = done
    error = refused.exception()
    assert isinstance(error, RemoteError)
    assert error.is_a(Busy)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


async def test_descriptors_stay_with_their_message(pair: Bus) -> None:
    for number in range(50):
        read_fd, write_fd = os.pipe()
        os.write(write_fd, str(number).encode())
        os.close(write_fd)
        texts = await asyncio.gather(
            pair.call(NAME, "Echo", "before"),
            pair.call(NAME, "Read", fds=(read_fd,)),
            pair.call(NAME, "Echo", "after"),
        )
        os.close(read_fd)
        assert list(texts) == [["before"], [str(number)], ["after"]]


async def test_a_signal_goes_to_who_listens(connect: Connect) -> None:
    server, client = await connect(), await connect()
    server.emit("Told", "nobody hears this")
    heard: list[str] = []

    def take(message: Message) -> bool:
        if message.member == "Told":
            heard.append(message.body[0])
        return False

    client._connection.add_message_handler(take)
    await client._call_daemon("AddMatch", "s", f"type='signal',interface='{NAME}'")
    await server.serve(NAME, "/org/clawos/Test1", Echo())
    server.emit("Told", "that")
    await client.call(NAME, "Echo", "x")
    assert heard == ["that"]
