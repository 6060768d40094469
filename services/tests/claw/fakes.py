"""Fakes of the services that claw asks, with the real signatures. Run as `python fakes.py ADDRESS ROOM
UID`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from clawos.core.bus import Bus, Fd, Interface, Str, method
from clawos.core.errors import BadRequest, ClawError
from clawos.core.names import Room
from clawos.core.parse import to_json
from clawos.core.stream import Writer
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.planner import Planner
from clawos.isolator.spec import parse

POLICIES = Path(__file__).parents[3] / "policies"
POWER = {
    "name": "power.off",
    "description": "End this machine.",
    "class": "dangerous",
    "parameters": {"type": "object", "properties": {}, "required": []},
    "verbs": ["off"],
}
READ = {
    "name": "file.read",
    "description": "Show a file.",
    "class": "safe",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "lines": {"type": "integer"}, "all": {"type": "boolean"}},
        "required": ["path"],
    },
    "verbs": [],
}
SHELL = {
    "name": "shell.run",
    "description": "Run a command.",
    "class": "cautious",
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    "verbs": [],
}
TOOL = {
    "name": "unit.restart",
    "description": "Restart a service.",
    "class": "cautious",
    "parameters": {"type": "object", "properties": {"unit": {"type": "string"}}, "required": ["unit"]},
    "verbs": ["restart"],
}


TOOLS = [TOOL, READ, POWER, SHELL]


class ArgumentsInvalid(ClawError):
    """The arguments do not fit."""

    name = "ArgumentsInvalid"


class ModelInvalid(ClawError):
    """The file is no model."""

    name = "ModelInvalid"


class FakeAgent(Interface):
    """`org.clawos.Agent1`, as far as claw asks it."""

    @method
    async def tools(self) -> Str:
        return json.dumps(TOOLS)

    @method
    async def spec(self, request: Str) -> Str:
        asked = json.loads(request)
        if asked["tool"] == "power.off":
            return json.dumps({"tool": "power.off", "argv": ["/bin/echo", "harm"]})
        if asked["tool"] == "shell.run" and "command" in asked["args"]:
            return json.dumps({"tool": "shell.run", "argv": ["/bin/sh", "-c", asked["args"]["command"]]})
        if "path" not in asked["args"]:
            raise ArgumentsInvalid(f"{asked['tool']}: data must contain ['path'] properties", "see '/tools'")
        words = [json.dumps(value) for value in asked["args"].values()]
        return json.dumps({"tool": asked["tool"], "argv": ["/usr/bin/cat", *words], "read": ["/etc"]})

    @method
    async def status(self) -> Str:
        invalid = [{"file": "/etc/clawos/tools.d/bad.toml", "error": "no argv"}]
        return json.dumps(
            {"sessions": 2, "states": {"idle": 2}, "tools": len(TOOLS), "tools_invalid": invalid}
        )


class FakeIsolator(Interface):
    """`org.clawos.Isolator1`, as far as claw asks it; plans are the real planner's."""

    def __init__(self) -> None:
        super().__init__()
        self._planner = Planner(Config(), quotas.load(POLICIES / "quotas.toml"), {"shell": bytes(8 * 400)})

    @method
    async def plan(self, spec: Str) -> Str:
        return to_json(self._planner.plan(parse(spec)).describe())

    @method
    async def status(self) -> Str:
        return json.dumps({"running": 0, "queued": 0, "landlock_abi": 6, "namespaces": 7, "cgroup": "/x"})


class FakeInference(Interface):
    """`org.clawos.Inference1`: a registry in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._models = {"builtin": self._model("builtin", 12_000_000, builtin=True)}
        self._active = "builtin"

    @staticmethod
    def _model(name: str, size_bytes: int, *, builtin: bool) -> dict[str, Any]:
        about = {
            "file": f"/x/{name}.gguf",
            "size_bytes": size_bytes,
            "builtin": builtin,
            "dialect": "clawos-tags-1",
        }
        return {"name": name, **about, "error": None}

    def _known(self, name: str) -> None:
        if name not in self._models:
            raise BadRequest(f"there is no model {name!r}", "see 'claw model list'")

    @method
    async def models(self) -> Str:
        return json.dumps([{**model, "active": name == self._active} for name, model in self._models.items()])

    @method
    async def use_model(self, name: Str) -> None:
        self._known(name)
        self._active = name

    @method
    async def add_model(self, name: Str, file: Fd) -> None:
        with os.fdopen(file, "rb") as source:
            data = source.read()
        if not data.startswith(b"GGUF"):
            raise ModelInvalid("the file is refused: no GGUF", "fetch it again, or add another")
        self._models[name] = self._model(name, len(data), builtin=False)

    @method
    async def remove_model(self, name: Str) -> None:
        self._known(name)
        del self._models[name]

    @method
    async def status(self) -> Str:
        about = {"model": self._active, "loaded": True, "dialect": "clawos-tags-1", "vocabulary": 4096}
        return json.dumps(
            {**about, "context_tokens": 2048, "resident_bytes": 30_000_000, "cpu_variant": "haswell"}
        )

    @method
    async def chat(self, request: Str) -> tuple[Str, Fd]:
        fd, writer = await Writer.open()
        await writer.send_json({"type": "text", "text": "hi"})
        counts = {
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "load_s": 0.5,
            "prompt_s": 0.1,
            "completion_s": 0.1,
        }
        await writer.send_json(
            {"type": "done", "finish": "length", "model": self._active, "grammar_s": 0.0, **counts}
        )
        self._closing = asyncio.get_running_loop().create_task(writer.close())
        return "c1", fd


class FakeNetwork(Interface):
    @method
    async def status(self) -> Str:
        return "{}"


async def main(address: str, room: str, uid: str) -> None:
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))  # only now: the bus policy lets only this user have the name
    fakes = {"agent": FakeAgent, "inference": FakeInference, "isolator": FakeIsolator, "network": FakeNetwork}
    bus = await Bus.connect(address)
    await bus.serve(Room(room).bus_name, Room(room).object_path, fakes[room]())
    print("ready", flush=True)
    await bus.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
