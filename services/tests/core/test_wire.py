"""The blocking client agrees with dbus-fast about bytes, passes descriptors, and can be woken up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from dbus_fast import Message, Variant
from hypothesis import given
from hypothesis import strategies as st

from clawos.core import marshal
from clawos.core.bus import Bus, Fd, Interface, Str, method
from clawos.core.errors import BadRequest, RemoteError, Unavailable
from clawos.core.wire import Interrupted, Wire

NAME, PATH = "org.clawos.Test1", "/org/clawos/Test1"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES: list[tuple[str, st.SearchStrategy[Any]]] = [
    ("s", TEXT),
    ("u", st.integers(0, 2**32 - 1)),
    ("t", st.integers(0, 2**64 - 1)),
    ("x", st.integers(-(2**63), 2**63 - 1)),
    ("y", st.integers(0, 255)),
    ("b", st.booleans()),
    ("d", st.floats(allow_nan=False)),
    ("as", st.lists(TEXT, max_size=5)),
    ("at", st.lists(st.integers(0, 2**64 - 1), max_size=5)),
    ("a{su}", st.dictionaries(TEXT, st.integers(0, 2**32 - 1), max_size=5)),
    ("(sut)", st.tuples(TEXT, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))),
]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, list[Any]]:
    kinds = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=6))
    return "".join(kind for kind, _ in kinds), [draw(values) for _, values in kinds]


def _message(signature: str, body: list[Any]) -> bytes:
    lists = [
        list(value) if isinstance(value, tuple) else value for value in body
    ]  # as dbus-fast wants structs
    message = Message(
        destination="a.b", path="/", interface="a.b", member="C", serial=1, signature=signature, body=lists
    )
    return bytes(message._marshall(False))


@given(bodies())
def test_bytes_are_those_of_dbus_fast_both_ways(body: tuple[str, list[Any]]) -> None:
    signature, values = body
    packed = bytes(marshal.pack(signature, values))
    theirs = _message(signature, values)
    assert theirs.endswith(packed)
    assert marshal.unpack(signature, packed) == values


def test_reads_a_variant_as_its_value() -> None:
    theirs = _message("v", [Variant("a(su)", [["x", 1]])])
    body_size = int.from_bytes(theirs[4:8], "little")
    assert marshal.unpack("v", theirs[-body_size:]) == [[("x", 1)]]


@pytest.mark.parametrize(("signature", "data"), [("s", b"\xff\0\0\0a"), ("u", b"\0"), ("as", b"\xff\0\0\0")])
def test_bytes_that_do_not_fit_are_refused(signature: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"ends early|longer than"):
        marshal.unpack(signature, data)


class Echo(Interface):
    """A service of ours."""

    @method
    async def echo(self, text: Str, file: Fd) -> tuple[Str, Fd]:
        return text, file

    @method
    async def refuse(self) -> None:
        raise BadRequest("no", "say please", count=3)

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
    for fd in (reading, writing, received):
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


def test_no_bus_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no system bus"):
        Wire.connect("unix:path=/nonexistent")
