"""The layouts of events.h and of records.py are the same: by the types that the compiled object carries."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clawos.monitor import records, source
from clawos.monitor.kinds import HOOKS, Kind

EBPF = Path(__file__).parents[3] / "ebpf"
pytestmark = pytest.mark.processes

LAYOUTS = {"event": records.HEAD} | {f"event_{kind.word}": layout for kind, layout in records.OWN.items()}


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of an object that is compiled as the monitor's are, with a variable of each type: so all are in it."""
    folder = tmp_path_factory.mktemp("layout")
    names = [*LAYOUTS, "address", "kind_count"]
    variables = "\n".join(f"struct {name} a_{name};" for name in names)
    code = f'#include "{EBPF}/maps.h"\n{variables}\nenum kind a_kind; enum hook a_hook;\n'
    (folder / "layout.bpf.c").write_text(code)
    made = folder / "layout.o"
    flags = ["--target=bpf", "-mcpu=v3", "-g", "-O2", "-std=gnu17", "-D__TARGET_ARCH_x86", "-DUNIT=layout"]
    machine = subprocess.run(
        ["gcc", "-dumpmachine"], capture_output=True, text=True, check=True
    ).stdout.strip()
    headers = ["-idirafter", f"/usr/include/{machine}"]
    subprocess.run(["clang", *flags, *headers, "-c", folder / "layout.bpf.c", "-o", made], check=True)
    dumped = subprocess.run(["bpftool", "-j", "btf", "dump", "file", made], capture_output=True, check=True)
    found: list[dict[str, Any]] = json.loads(dumped.stdout)["types"]
    return found


def struct_of(types: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (t for t in types if t["kind"] == "STRUCT" and t["name"] == name)
    return found


def fields(types: list[dict[str, Any]], name: str) -> list[tuple[int, int]]:
    """Offset and size of each number or array of bytes, in inner structs too; not of `event` and spares."""
    by_id = {t["id"]: t for t in types}

    def walk(type_id: int, offset: int) -> list[tuple[int, int]]:
        what = by_id[type_id]
        if what["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
            return walk(what["type_id"], offset)
        if what["kind"] == "STRUCT":
            inner = (m for m in what["members"] if m["name"] not in ("event", "spare"))
            return [one for m in inner for one in walk(m["type_id"], offset + m["bits_offset"] // 8)]
        if what["kind"] == "ARRAY":
            (_, size), *_ = walk(what["type_id"], 0)
            if size == 1:
                return [(offset, what["nr_elems"])]
            return [(offset + i * size, size) for i in range(what["nr_elems"])]
        return [(offset, what["size"])]

    return walk(struct_of(types, name)["id"], 0)


def fields_of(layout: str) -> list[tuple[int, int]]:
    """The same of a layout of struct's."""
    found, offset = [], 0
    for count, code in re.findall(r"(\d*)([A-Za-z])", layout):
        size = struct.calcsize("=" + code)
        if code == "s":
            found.append((offset, int(count)))
            offset += int(count)
            continue
        for _ in range(int(count or 1)):
            if code != "x":
                found.append((offset, size))
            offset += size
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_fields_stand_where_they_are_read(types: list[dict[str, Any]], name: str) -> None:
    head = struct.calcsize("=" + records.HEAD) if name != "event" else 0
    layout = LAYOUTS[name].replace(records.ADDRESS, records.ADDRESS[:-1] + "4x")
    wanted = [(offset + head, size) for offset, size in fields_of(layout)]
    assert fields(types, name) == wanted
    assert struct_of(types, name)["size"] == head + struct.calcsize("=" + LAYOUTS[name])


def test_nothing_is_hidden_between_fields(types: list[dict[str, Any]]) -> None:
    """What the compiler would put there would be whatever was in memory before."""
    for name in [*LAYOUTS, "address"]:
        made = struct_of(types, name)
        at = 0
        for member in made["members"]:
            assert member["bits_offset"] == 8 * at, f"{name}.{member['name']}"
            at += size_of(types, member["type_id"])
        assert at == made["size"], name


def size_of(types: list[dict[str, Any]], type_id: int) -> int:
    what = next(t for t in types if t["id"] == type_id)
    if what["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
        return size_of(types, what["type_id"])
    if what["kind"] == "ARRAY":
        return int(what["nr_elems"]) * size_of(types, what["type_id"])
    return int(what["size"])


def values(types: list[dict[str, Any]], name: str) -> dict[str, int]:
    (found,) = (t for t in types if t["kind"] == "ENUM" and t["name"] == name)
    return {value["name"]: value["val"] for value in found["values"]}


def test_kinds_and_hooks_have_the_same_numbers(types: list[dict[str, Any]]) -> None:
    ours = {f"KIND_{kind.name}": kind.value for kind in Kind} | {"KINDS": len(Kind) + 1}
    found = values(types, "kind")
    assert found == ours
    assert set(values(types, "hook").values()) == set(HOOKS)


def test_the_version_is_that_of_the_header() -> None:
    text = (EBPF / "events.h").read_text()
    assert f"#define EVENT_VERSION {records.VERSION}\n" in text


def test_the_flags_of_exec_are_those_of_the_header() -> None:
    text = (EBPF / "events.h").read_text()
    told = {name: int(bit) for name, bit in re.findall(r"^#define EXEC_(\w+) (\d+)", text, re.MULTILINE)}
    ours = {name: bit for bit, name in records._LOADER.items()}
    assert told == ours | {"ARGS_TRUNCATED": records._ARGS_TRUNCATED}


def test_counts_stand_where_they_are_read(types: list[dict[str, Any]]) -> None:
    assert fields(types, "kind_count") == fields_of(source._COUNT.format.removeprefix("="))
