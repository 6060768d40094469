"""The blocking client passes texts and descriptors, says what went wrong, and can be woken up."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clawos.core.bus import Bus, Fd, Fds, Interface, Str, method
from clawos.core.errors import BadRequest, RemoteError, Unavailable
from clawos.core.wire import Interrupted, Wire

NAME, PATH = "org.clawos.Test1", "/org/clawos/Test1"
BUS = "org.freedesktop.DBus"


class Echo(Interface):
    """A service of ours."""

    @method
    async def echo(self, text: Str, file: Fd) -> tuple[Str, Fd]:
        return text, file

    @method
    async def several(self, file: Fd) -> tuple[Fds, Str]:
        return [file, os.dup(file)], "and"

    @method
    async def refuse(self) -> None:
        raise BadRequest("no", "say please", count=3)

    @method
    async def slow(self, file: Fd) -> Fd:
        await asyncio.sleep(0.3)
        return file

    @method
    async def wait(self) -> None:
        await asyncio.sleep(30)


@pytest.fixture
async def wire(connect: Callable[[], Awaitable[Bus]], bus_address: str) -> AsyncIterator[Wire]:
    bus = await connect()
    await bus.serve(NAME, PATH, Echo())
    made = await asyncio.to_thread(Wire.connect, bus_address)
    yield made
    made.close()


async def test_texts_and_descriptors_go_there_and_back(wire: Wire) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"through")
    long = "größe 🦀" * 100_000
    text, received = await asyncio.to_thread(wire.room, NAME, "Echo", long, fds=(reading,))
    assert text == long
    assert os.read(received, 10) == b"through"
    assert not os.get_inheritable(received)
    for fd in (reading, writing, received):
        os.close(fd)


async def test_several_descriptors_are_a_list(wire: Wire) -> None:
    reading, writing = os.pipe()
    (first, second), text = await asyncio.to_thread(wire.room, NAME, "Several", fds=(reading,))
    os.write(writing, b"12")
    assert (os.read(first, 1), os.read(second, 1), text) == (b"1", b"2", "and")
    for fd in (reading, writing, first, second):
        assert not os.get_inheritable(fd)
        os.close(fd)


async def test_an_error_keeps_its_name_hint_and_fields(wire: Wire) -> None:
    with pytest.raises(RemoteError) as caught:
        await asyncio.to_thread(wire.room, NAME, "Refuse")
    assert caught.value.is_a(BadRequest)
    assert (caught.value.message, caught.value.hint, caught.value.fields) == (
        "no",
        "say please",
        {"count": 3},
    )


async def test_nobody_there_names_the_unit(wire: Wire) -> None:
    with pytest.raises(Unavailable) as caught:
        await asyncio.to_thread(wire.room, "org.clawos.Nobody1", "Status")
    assert caught.value.fields == {"unit": "clawos-nobody"}
    assert not wire.has_owner("org.clawos.Nobody1")
    assert wire.has_owner(NAME)


async def test_no_answer_in_time_is_unavailable(wire: Wire) -> None:
    with pytest.raises(Unavailable):
        await asyncio.to_thread(wire.room, NAME, "Wait", timeout_s=0.2)


async def test_a_waiting_call_can_be_woken_up_and_the_next_one_works(wire: Wire) -> None:
    reading, writing = os.pipe()
    wire.wake_fd = reading
    os.write(writing, b"x")
    with pytest.raises(Interrupted):
        await asyncio.to_thread(wire.room, NAME, "Wait")
    wire.wake_fd = None
    os.close(writing)
    with pytest.raises(RemoteError):
        await asyncio.to_thread(wire.room, NAME, "Refuse")
    os.close(reading)


async def test_the_answer_to_a_call_given_up_is_dropped_with_its_descriptors(wire: Wire) -> None:
    reading, writing = os.pipe()
    with pytest.raises(Unavailable):
        await asyncio.to_thread(wire.room, NAME, "Slow", fds=(writing,), timeout_s=0.1)
    await asyncio.sleep(0.5)
    text, received = await asyncio.to_thread(wire.room, NAME, "Echo", "mine", fds=(reading,))
    assert text == "mine"
    for fd in (writing, received):
        os.close(fd)
    # The pipe ends only when nobody holds its other end any more.
    assert await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), 10) == b""
    os.close(reading)


def test_a_property_is_its_bare_value(wire: Wire) -> None:
    features = wire.read_property(BUS, "/org/freedesktop/DBus", BUS, "Features")
    assert "HeaderFiltering" in features


def test_a_name_that_nobody_installed_cannot_be_started(wire: Wire) -> None:
    assert wire.can_start(BUS)
    assert not wire.can_start("org.clawos.Nobody1")


@pytest.mark.parametrize("address", ["unix:path=/nonexistent", "tcp:host=localhost", "nonsense", ""])
def test_no_bus_is_unavailable(address: str) -> None:
    with pytest.raises(Unavailable, match="no system bus"):
        Wire.connect(address)


def test_takes_the_first_address_that_answers(bus_address: str) -> None:
    Wire.connect(f"unix:path=/nonexistent;{bus_address}").close()


@contextmanager
def daemon(path: Path, *answers: bytes, silent: bool) -> Iterator[str]:
    """A bus that misbehaves: an answer for each thing it hears, then it closes or falls silent."""
    over = threading.Event()
    if not silent:
        over.set()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1)
            for answer in answers:
                connection.recv(4096)
                connection.sendall(answer)
            connection.recv(4096)
            over.wait(30)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield f"unix:path={path}"
        finally:
            over.set()
            thread.join(30)


WELCOME = (b"OK 0123\r\n", b"AGREE_UNIX_FD\r\n")


@pytest.mark.parametrize(
    ("answers", "silent", "what"),
    [
        ((b"REJECTED EXTERNAL\r\n",), False, "refused us"),
        ((b"OK 0123\r\n", b"ERROR\r\n"), False, "refused us"),
        (WELCOME, False, "went away"),
        ((), True, "no system bus"),
        (WELCOME, True, "does not answer"),
    ],
)
def test_a_bus_that_misbehaves_is_unavailable(
    answers: tuple[bytes, ...], silent: bool, what: str, tmp_path: Path
) -> None:
    with (
        daemon(tmp_path / "socket", *answers, silent=silent) as address,
        pytest.raises(Unavailable, match=what) as caught,
    ):
        Wire.connect(address, timeout_s=0.3)
    assert caught.value.fields == {"unit": "dbus"}
