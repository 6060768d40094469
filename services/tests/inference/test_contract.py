"""The room's files: who may call it, its members as written down, and its unit."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from inference.conftest import MakeRoom

from clawos.core.parse import from_toml
from clawos.inference.config import ROOM, Config, physical_cores

SYSTEM = Path(__file__).parents[2] / "src" / "clawos" / "inference" / "system"


@pytest.mark.processes
async def test_only_the_agent_and_root_may_call(
    make_room: MakeRoom, tiny: Path, call_as: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    room = await make_room(tiny)
    assert "model" in await room.call("Status")
    assert "ok" in await call_as("clawos-agent", ROOM.bus_name, "Status")
    for user in ("nobody", "clawos-inference"):
        answer = await call_as(user, ROOM.bus_name, "Status")
        assert answer["error"].endswith("AccessDenied"), user


async def test_the_members_are_as_written_down(make_room: MakeRoom, tiny: Path) -> None:
    room = await make_room(tiny)
    from clawos.inference.interface import Inference

    described = Inference(room.service).describe(ROOM.bus_name)
    assert described.strip() == (SYSTEM / f"{ROOM.bus_name}.xml").read_text().strip()


def test_the_shipped_settings_are_the_defaults() -> None:
    """Every line of the file, uncommented, says what Config says without it."""
    shipped = (SYSTEM / "inference.toml").read_text()
    settings = "\n".join(line[2:] for line in shipped.splitlines() if line.startswith("# ") and " = " in line)
    assert set(tomllib.loads(settings)) == set(Config.__struct_fields__)
    path = SYSTEM / "inference.toml"
    assert from_toml(path, Config) == Config()
    defaults = Config()
    for name, value in tomllib.loads(settings).items():
        assert type(getattr(defaults, name))(value) == getattr(defaults, name), name


def test_the_unit_is_this_rooms() -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SYSTEM / ROOM.unit)
    service = unit["Service"]
    assert service["User"] == ROOM.user
    assert service["BusName"] == ROOM.bus_name
    assert service["ExecStart"] == f"/usr/bin/python3 -I -m {ROOM.package}"
    assert service["PrivateNetwork"] == "yes"
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) <= 60


def test_threads_are_as_many_as_physical_cores(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings + "\n")
    assert physical_cores({0, 1, 2, 3}, tmp_path) == 2
    assert physical_cores({0, 2}, tmp_path) == 1
    assert physical_cores({7, 8}, tmp_path / "none") == 2
    assert Config(threads=3).thread_count() == 3


def test_the_service_imports_nothing_that_the_builtin_model_does_not_need() -> None:
    code = """
import sys
import clawos.inference.__main__, clawos.inference.dialects.tags
from clawos.inference.library import library
library()
heavy = {"numpy", "llguidance", "jinja2", "fastjsonschema", "diskcache"}
print(sorted(heavy & set(sys.modules)))
"""
    root = str(SYSTEM.parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
