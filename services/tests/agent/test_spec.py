"""What a call would ask of the isolator, told to whoever may ask the agent at all."""

from __future__ import annotations

import json
import pwd
from typing import Any

import pytest
from agent.conftest import Client, MakeWorld

from clawos.core.errors import RemoteError


async def spec(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    (text,) = await client.call("Spec", json.dumps({"tool": tool, "args": arguments}))
    found: dict[str, Any] = json.loads(text)
    return found


async def test_it_is_the_callers_own_call(make_world: MakeWorld) -> None:
    world = await make_world()
    found = await spec(world.client, "file.read", path="notes.txt")
    assert found["argv"][-1] == "notes.txt"
    assert (found["home"], found["cwd"]) == ("read", "/home/mail")
    assert found["home_owner"] == pwd.getpwnam("mail").pw_uid
    other = await spec(await world.other(), "file.read", path="notes.txt")
    assert other["home_owner"] == pwd.getpwnam("games").pw_uid
    assert world.sandbox.ran == [], "nothing ran"


async def test_arguments_are_checked_as_a_models_are(make_world: MakeWorld) -> None:
    world = await make_world()
    with pytest.raises(RemoteError, match="path") as missing:
        await spec(world.client, "file.read")
    assert missing.value.error_name.endswith("ArgumentsInvalid")
    with pytest.raises(RemoteError, match="no tool") as unknown:
        await spec(world.client, "no.such")
    assert unknown.value.error_name.endswith("ToolUnknown")
    with pytest.raises(RemoteError, match="home_owner"):
        await world.client.call("Spec", '{"tool": "file.read", "home_owner": 0}')
