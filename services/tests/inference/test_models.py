"""The registry over the bus: adding, using and removing models, and files that are none."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import error_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference import tinymodel
from inference.conftest import TOOLS, MakeRoom, Room

from clawos.core.errors import ClawError
from clawos.inference.errors import ModelInvalid
from clawos.inference.gguf import BLOCKS, read_header
from clawos.inference.library import library
from clawos.inference.registry import Registry
from clawos.inference.trial import Finding, try_out

pytestmark = pytest.mark.processes


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


async def add(room: Room, name: str, path: Path) -> None:
    with opened(path) as fd:
        await room.call("AddModel", name, fds=(fd,))


async def outcome_of_adding(room: Room, name: str, path: Path) -> str | None:
    """The name of the error, or None."""
    try:
        await add(room, name, path)
    except ClawError as error:
        return error.bus_name.rpartition(".")[2]
    return None


async def refused(room: Room, member: str, *arguments: str) -> str:
    with pytest.raises(ClawError) as error:
        await room.call(member, *arguments)
    return error_name(error)


async def works(room: Room) -> bool:
    return bool((await room.chat(max_tokens=1, temperature=0))[-1]["completion_tokens"] == 1)


async def test_a_model_is_added_used_kept_and_removed(make_room: MakeRoom, tiny: Path, talker: Path) -> None:
    room = await make_room(tiny)
    await add(room, "talker", talker)
    models = await room.models()
    assert models["builtin"]["active"]
    assert models["builtin"]["builtin"]
    assert models["talker"]["error"] is None
    assert models["talker"]["dialect"] == "template"
    assert models["talker"]["size_bytes"] == talker.stat().st_size
    await room.call("UseModel", "talker")
    assert (await room.status())["model"] == "talker"
    assert (await room.chat(max_tokens=1))[-1]["model"] == "talker"
    assert (await room.chat(max_tokens=1, model="builtin"))[-1]["model"] == "builtin"
    assert (room.config.state / "active").read_text() == "talker"
    await room.call("RemoveModel", "talker")
    assert (await room.status())["model"] == "builtin"
    assert list(room.config.models.iterdir()) == []
    assert await works(room)


async def test_the_status_describes_what_is_loaded(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    assert (await room.status())["loaded"] is False
    assert await works(room)
    status = await room.status()
    assert status["loaded"] is True
    assert status["dialect"] == "template"
    assert status["vocabulary"] == 260
    assert status["context_tokens"] == 2048
    assert status["resident_bytes"] > 1 << 20
    assert status["cpu_variant"]


async def test_the_model_in_use_is_loaded_at_the_start(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    room.service.preload()
    assert (await room.chat(max_tokens=1))[-1]["load_s"] == 0


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a\0b", "x" * 65, "ä", "-rf"])
async def test_a_name_that_could_be_a_path_is_refused(make_room: MakeRoom, tiny: Path, name: str) -> None:
    room = await make_room(tiny)
    if "\0" not in name:
        for member in ("UseModel", "RemoveModel"):
            assert await refused(room, member, name) == "BadRequest"
        with pytest.raises(ClawError) as error:
            await add(room, name, tiny)
        assert error_name(error) == "BadRequest"
    assert list(room.config.models.iterdir()) == []


async def test_a_name_is_given_once_and_the_builtin_stays(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    await add(room, "one", tiny)
    for name in ("one", "builtin"):
        with pytest.raises(ClawError) as error:
            await add(room, name, tiny)
        assert error_name(error) == "BadRequest"
    assert await refused(room, "RemoveModel", "builtin") == "BadRequest"


async def test_a_pipe_is_no_model(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    read_fd, write_fd = os.pipe()
    try:
        with pytest.raises(ClawError) as error:
            await room.call("AddModel", "pipe", fds=(read_fd,))
    finally:
        os.close(read_fd)
        os.close(write_fd)
    assert error_name(error) == "BadRequest"


async def test_a_model_larger_than_allowed_is_refused(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny, max_model_bytes=1000)
    with pytest.raises(ClawError) as error:
        await add(room, "large", tiny)
    assert error_name(error) == "BadRequest"
    assert list(room.config.models.iterdir()) == []


async def test_a_model_that_is_missing_is_named(make_room: MakeRoom, tiny: Path, tmp_path: Path) -> None:
    room = await make_room(tmp_path / "none.gguf")
    with pytest.raises(ClawError) as error:
        await room.chat()
    assert error_name(error) == "ModelMissing"
    assert (await room.models())["builtin"]["error"]
    assert await refused(room, "UseModel", "nothing") == "ModelMissing"
    await add(room, "tiny", tiny)
    await room.call("UseModel", "tiny")
    assert await works(room)


async def test_a_truncated_model_is_refused_at_every_sixteenth(
    make_room: MakeRoom, tiny: Path, tmp_path: Path
) -> None:
    room = await make_room(tiny)
    data = tiny.read_bytes()
    for part in range(16):
        cut = tmp_path / "cut"
        cut.write_bytes(data[: len(data) * part // 16])
        with pytest.raises(ClawError) as error:
            await add(room, "cut", cut)
        assert error_name(error) == "ModelInvalid", part
        # Put there by hand, it is listed with its fault and can be removed.
        shutil.copy(cut, room.config.models / "cut.gguf")
        assert (await room.models())["cut"]["error"]
        assert await refused(room, "UseModel", "cut") == "ModelInvalid"
        await room.call("RemoveModel", "cut")
    assert await works(room)


async def test_a_bad_model_leaves_the_old_one_in_use(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    assert await works(room)
    (room.config.models / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    assert await refused(room, "UseModel", "bad") == "ModelInvalid"
    with pytest.raises(ClawError) as error:
        await room.chat(model="bad")
    assert error_name(error) == "ModelInvalid"
    status = await room.status()
    assert status["model"] == "builtin"
    assert status["loaded"]
    assert await works(room)


async def test_a_file_that_brings_llama_cpp_down_does_so_in_the_trial(
    make_room: MakeRoom, tiny: Path, tmp_path: Path
) -> None:
    """The header holds by our rules; what it says makes no sense. Each ends in a name, none in our end."""
    room = await make_room(tiny)
    data = tiny.read_bytes()
    for key, value in (
        ("llama.embedding_length", 31),
        ("llama.block_count", 4_000_000_000),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count_kv", 7),
        ("llama.rope.dimension_count", 4_000_000_000),
        ("llama.feed_forward_length", 0),
        ("tokenizer.ggml.eos_token_id", 4_000_000_000),
    ):
        at = data.index(key.encode()) + len(key) + 4
        hostile = tmp_path / "hostile.gguf"
        hostile.write_bytes(data[:at] + struct.pack("<I", value) + data[at + 4 :])
        outcome = await outcome_of_adding(room, "hostile", hostile)
        assert outcome in (None, "ModelInvalid"), key
        if outcome is None:
            assert (await room.chat(model="hostile", max_tokens=3))[-1]["type"] == "done", key
            await room.call("RemoveModel", "hostile")
    assert await works(room)


async def test_a_trial_that_crashes_says_by_which_signal(tiny: Path, tmp_path: Path) -> None:
    data = tiny.read_bytes()
    at = data.index(b"llama.block_count") + len("llama.block_count") + 4
    path = tmp_path / "crash.gguf"
    path.write_bytes(data[:at] + struct.pack("<I", 0) + data[at + 4 :])
    finding = await try_out(path, 60, 1)
    assert "signal" in finding.error


async def test_random_damage_to_the_file_never_ends_the_service(
    make_room: MakeRoom, tiny: Path, tmp_path: Path
) -> None:
    room = await make_room(tiny)
    data = bytearray(tiny.read_bytes())
    header_bytes = read_header(tiny).data_offset
    draw = random.Random(5)
    for _ in range(12):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 1, 4))):
            damaged[draw.randrange(header_bytes)] ^= 1 << draw.randrange(8)
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        outcome = await outcome_of_adding(room, "damaged", path)
        assert outcome in (None, "ModelInvalid")
        if outcome is None:
            await room.chat(model="damaged", max_tokens=3)
            await room.call("RemoveModel", "damaged")
    assert await works(room)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=6))
def test_the_header_reader_answers_any_bytes_with_a_header_or_a_name(
    tiny: Path, tmp_path: Path, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(tiny.read_bytes())
    header_bytes = read_header(tiny).data_offset
    for at, mask in flips:
        data[at % header_bytes] ^= mask
    path = tmp_path / "flipped"
    path.write_bytes(data)
    try:
        data_offset = read_header(path).data_offset
    except ModelInvalid:
        data_offset = 0
    assert data_offset <= len(data)


def gguf(*, tensors: int = 1, keys: int = 0, version: int = 3, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


HOSTILE = {
    "nothing": b"",
    "not a GGUF": b"GGML" + bytes(60),
    "version": gguf(version=4),
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 1, 0),
    "key count": gguf(keys=1 << 60),
    "tensor count": gguf(tensors=1 << 60),
    "no tensors": gguf(tensors=0),
    "key length": gguf(keys=1, rest=struct.pack("<Q", 1 << 62)),
    "array length": gguf(keys=1, rest=struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 1 << 40)),
    "nested array": gguf(keys=1, rest=struct.pack("<Q1sIIQ", 1, b"a", 9, 9, 1)),
    "value type": gguf(keys=1, rest=struct.pack("<Q1sI", 1, b"a", 99)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_counts_are_named_and_cost_nothing(tmp_path: Path, what: str) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(HOSTILE[what] + bytes(64))
    with pytest.raises(ModelInvalid) as error:
        read_header(path)
    assert "GGUF" in str(error.value)


def test_the_table_of_types_is_the_librarys() -> None:
    ggml = library().ggml
    ggml.ggml_blck_size.restype, ggml.ggml_type_size.restype = ctypes.c_int64, ctypes.c_size_t
    for kind, block in BLOCKS.items():
        assert (ggml.ggml_blck_size(kind), ggml.ggml_type_size(kind)) == block, kind


TEMPLATES = {
    "syntax": "{% for %}",
    "endless": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "huge": "{{ 'x' * 999999999999 }}",
    "much": "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "raises": "{{ raise_exception('not me') }}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "none": "{{ messages[7].content }}",
}


@pytest.mark.parametrize("what", TEMPLATES)
async def test_a_bad_template_is_refused(make_room: MakeRoom, tiny: Path, tmp_path: Path, what: str) -> None:
    room = await make_room(tiny, trial_s=2.5)
    path = tinymodel.write(tmp_path / "bad.gguf", template=TEMPLATES[what])
    with pytest.raises(ClawError) as error:
        await add(room, "bad", path)
    assert error_name(error) == "ModelInvalid"
    assert await works(room)


async def test_a_template_that_turns_bad_later_ends_the_chat_and_not_the_service(
    make_room: MakeRoom, tiny: Path, tmp_path: Path
) -> None:
    later = "{% if tools %}" + TEMPLATES["endless"] + "{% endif %}" + tinymodel.CHATML
    path = tinymodel.write(tmp_path / "later.gguf", template=later)
    room = await make_room(path, render_s=1.5)
    events = await room.chat(tools=TOOLS)
    assert [event["type"] for event in events] == ["error", "done"]
    assert events[0]["name"] == "ModelInvalid"
    assert await works(room)


async def test_a_model_without_a_template_gets_a_plain_one(make_room: MakeRoom, tmp_path: Path) -> None:
    room = await make_room(tinymodel.write(tmp_path / "plain.gguf", template=None))
    assert await works(room)
    assert (await room.chat(tools=TOOLS, max_tokens=1))[-1]["prompt_tokens"] > 100


async def test_a_verdict_is_kept_until_the_file_changes(
    make_room: MakeRoom, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: list[Path] = []

    async def counted(path: Path, timeout_s: float, threads: int) -> Finding:
        trials.append(path)
        return await try_out(path, timeout_s, threads)

    monkeypatch.setattr("clawos.inference.registry.try_out", counted)
    path = Path(shutil.copy(tiny, tmp_path / "mine.gguf"))
    room = await make_room(path)
    assert await works(room)
    fresh = Registry(room.config)
    assert not (await fresh.examine("builtin")).error
    assert len(trials) == 1
    os.utime(path, (1, 1))
    await fresh.examine("builtin")
    assert len(trials) == 2
