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


class NoSuchSession(ClawError):
    """No such session."""

    name = "NoSuchSession"


class FakeAgent(Interface):
    """`org.clawos.Agent1`, as far as claw asks it."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen = [{"session": "f00d", "user": 0, "name": "default", "reason": "reverse-shell: it did"}]

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
    async def frozen(self) -> Str:
        return json.dumps(self._frozen)

    @method
    async def thaw(self, session: Str) -> None:
        if session != "f00d":
            raise NoSuchSession("there is no such session", "see 'claw session list'")
        self._frozen.clear()

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


EVENT = {
    "time": "2026-11-21T12:00:00.000001Z",
    "kind": "exec",
    "call": "0123456789abcdef",
    "tgid": 77,
    "comm": "id",
    "exe": "/usr/bin/id",
    "path": "/usr/bin/id",
    "args": ["id", "-u\x1b[31m"],
}
ALERT = {
    "id": "a1",
    "time": "2026-11-21T12:00:00.000001Z",
    "rule": "reverse-shell",
    "severity": "high",
    "attack": ["T1059.004"],
    "message": "the tool shell.run became /bin/sh",
    "call": "0123456789abcdef",
    "reactions": [{"kind": "kill", "done": True, "error": ""}],
    "repeats": 2,
}


class FakeMonitor(Interface):
    """`org.clawos.Monitor1`, as far as claw asks it."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = 0

    @method
    async def recent(self, wanted: Str) -> Str:
        asked = json.loads(wanted)
        if "nonsense" in asked.get("kinds", ()):
            raise FilterInvalid("wanted: kinds: there is no kind 'nonsense'")
        return json.dumps([] if asked.get("call") == "none" else [EVENT])

    @method
    async def subscribe(self, wanted: Str) -> Fd:
        fd, writer = await Writer.open()
        for line in (EVENT, {"kind": "alert", **ALERT}, {"kind": "lost", "of": "subscriber", "count": 3}):
            await writer.send_json(line)
        self._closing = asyncio.get_running_loop().create_task(writer.close())
        return fd

    @method
    async def alerts(self, wanted: Str) -> Str:
        return json.dumps([] if json.loads(wanted)["severity"] == "critical" else [ALERT])

    @method
    async def rules(self) -> Str:
        rule = {
            "id": "reverse-shell",
            "title": "A",
            "severity": "high",
            "attack": ["T1059"],
            "react": ["log"],
        }
        return json.dumps([{**rule, "hits": 3}])

    @method
    async def reload(self) -> Str:
        raise RulesInvalid("/etc/clawos/detect.d/x.toml, line 3: no", "correct the file", line=3)

    @method
    async def metrics(self) -> Str:
        return "# TYPE clawos_rules gauge\nclawos_rules 3\n"

    @method
    async def stats(self) -> Str:
        self._asked += 1
        usage = {"cpu_s": self._asked / 2, "memory_bytes": 5_000_000}
        return json.dumps(
            {
                "events": 1000 * self._asked,
                "lost": 0,
                "ring_used": 0.01,
                "alerts": 1,
                "processes": 9,
                "services": [{"service": "clawos-agent", **usage}],
                "calls": [{"call": "0123456789abcdef", "tool": "shell.run", **usage}],
            }
        )

    @method
    async def status(self) -> Str:
        return "{}"


class FilterInvalid(ClawError):
    """No filter."""

    name = "FilterInvalid"


class RulesInvalid(ClawError):
    """No rules."""

    name = "RulesInvalid"


class FakeNetwork(Interface):
    @method
    async def status(self) -> Str:
        return "{}"


async def main(address: str, room: str, uid: str) -> None:
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))  # only now: the bus policy lets only this user have the name
    fakes = {
        "agent": FakeAgent,
        "inference": FakeInference,
        "isolator": FakeIsolator,
        "monitor": FakeMonitor,
        "network": FakeNetwork,
    }
    bus = await Bus.connect(address)
    await bus.serve(Room(room).bus_name, Room(room).object_path, fakes[room]())
    print("ready", flush=True)
    await bus.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
