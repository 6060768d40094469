"""Both backends make the same sandbox: what a program sees inside is compared, line by line.

What differs on purpose stands here and in docs/services/isolator.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from clawos.isolator import backend as backends
from clawos.isolator.config import Config
from clawos.isolator.planner import Planner
from clawos.isolator.ports import Sandbox, Streams
from clawos.isolator.spec import parse

from .conftest import BACKENDS, read_all, spec_text

pytestmark = pytest.mark.processes

LOOK = Path(__file__).with_name("look_around.py").read_text()
# Bubblewrap's root has no size, but nothing of it can be written. See confine/set_id.c for the filter. The
# launcher's pid 1 has another id than the program, which is no part of bubblewrap's map; its end is the end
# of all by the pid namespace alone.
ON_PURPOSE = {"mounts: /", "status: Seccomp_filters", "id maps: uid_map", "death signal"}
SPECS = {
    "plain": {},
    "home": {"home": "write", "home_owner": 0},
    "home to read": {"home": "read", "home_owner": 0},
    "reads": {"read": ["/etc", "/var/log"]},
    "host's proc": {"host_proc": True},
    "another user": {"run_as": "clawos-units", "groups": ["systemd-journal"]},
    "python": {"seccomp": "python"},
}


async def look_around(sandbox: Sandbox, planner: Planner, spec: dict[str, object]) -> dict[str, object]:
    plan = planner.plan(parse(spec_text("/usr/bin/python3", "-I", "-S", "-c", LOOK, **spec)))
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    errors = os.dup(2)
    running = await sandbox.start("1", plan, Streams(nothing, out_write, errors))
    os.close(out_write)
    os.close(errors)
    os.close(nothing)
    outcome = await running.wait()
    seen = read_all(out_read)
    assert outcome.exit_code == 0, seen
    found: dict[str, object] = json.loads(seen)
    return found


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
async def test_a_program_sees_the_same(config: Config, planner: Planner, spec: dict[str, object]) -> None:
    anybody = {**config.run_as, "clawos-units": ("*",)}
    planner = Planner(msgspec.structs.replace(config, run_as=anybody), planner._quotas, planner._filters)
    seen = []
    for name in BACKENDS:
        sandbox = await backends.choose(msgspec.structs.replace(config, backend=name), None)
        seen.append(await look_around(sandbox, planner, spec))
        await sandbox.close()
    first, second = seen
    assert len(first) > 10
    found = dict(differences(first, second))
    assert {where: what for where, what in found.items() if where not in ON_PURPOSE} == {}
    assert set(found) == ON_PURPOSE, "what differs no more must not stand there"


def differences(first: object, second: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Where two of them are not the same, and what stands there in both."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first | second):
            yield from differences(first.get(key), second.get(key), f"{where}: {key}" if where else key)
    elif first != second:
        yield where, f"{first} → {second}"
