"""The guest's side of `call`: run one tool as the agent does after an approval. Sent by the channel.

Arguments: the tool's name, its arguments as JSON, the user's name, and fields of the specification to change,
as JSON. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sys
from pathlib import Path

from clawos.agent.manifest import Manifest
from clawos.agent.sandbox import User, run_spec
from clawos.agent.template import expand
from clawos.core.bus import Bus
from clawos.core.errors import ClawError
from clawos.core.names import POLICY_DIR
from clawos.core.parse import from_toml, to_json

ADDED = Path("/etc/clawos/tools.d")


async def main(tool: str, arguments: str, name: str, changes: str) -> None:
    own = ADDED / f"{tool}.toml"
    manifest = from_toml(own if own.exists() else POLICY_DIR / "tools" / own.name, Manifest)
    user = User(pwd.getpwnam(name).pw_uid, name)
    made = json.loads(to_json(run_spec(manifest, expand(manifest.argv, json.loads(arguments)), user)))
    spec = json.dumps(made | json.loads(changes))
    bus = await Bus.connect()
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        _, *streams = await bus.call("org.clawos.Isolator1", "Run", spec, fds=(nothing,))
    except ClawError as error:
        print(json.dumps({"refused": f"{error.bus_name}: {error.message}"}))
        return
    stdout, stderr, result = await asyncio.gather(*(asyncio.to_thread(_read, fd) for fd in streams))
    print(json.dumps({"stdout": stdout, "stderr": stderr, **json.loads(result)}))
    await bus.close()


def _read(fd: int) -> str:
    with os.fdopen(fd, "rb") as stream:
        return stream.read().decode(errors="replace")


asyncio.run(main(*sys.argv[1:]))
