"""The room's files and its bus face: who may ask for what, and who hears of alerts."""

from __future__ import annotations

import asyncio
import configparser
import grp
import json
import os
import pwd
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dbus_fast import Message, MessageType
from monitor.conftest import World
from monitor.events import CALL, x
from monitor.test_service import until

from clawos.core.bus import Bus, Interface, Str, method
from clawos.core.errors import ConfigInvalid, RemoteError
from clawos.core.parse import from_toml
from clawos.monitor.config import ROOM, Config, Followed
from clawos.monitor.filters import EventFilter
from clawos.monitor.interface import MonitorInterface
from clawos.monitor.peers import AGENT, ISOLATOR, BusAgent, BusIsolator

SYSTEM = Path(__file__).parents[2] / "src" / "clawos" / "monitor" / "system"
Connect = Callable[[], Awaitable[Bus]]
CallAs = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def served(world: World, connect: Connect) -> tuple[Bus, Bus]:
    server = await connect()
    await server.serve(ROOM.bus_name, ROOM.object_path, MonitorInterface(world.monitor))
    return server, await connect()


async def ask(bus: Bus, member: str, *arguments: str) -> Any:
    (text,) = await bus.call(ROOM.bus_name, member, *arguments)
    return json.loads(text)


async def test_members_answer_over_the_bus(served: tuple[Bus, Bus], world: World) -> None:
    _, bus = served
    world.isolator.run()
    world.source.put(x("id", call=CALL))
    await until(lambda: world.monitor.status()["events"] == 1)
    assert (await ask(bus, "Status"))["events"] == 1
    assert (await ask(bus, "Stats"))["events_by_kind"] == {"exec": 1}
    assert len(await ask(bus, "Rules")) == (await ask(bus, "Reload"))["rules"]
    assert {a["rule"] for a in await ask(bus, "Alerts", "{}")} == {"user-discovery"}
    (metrics,) = await bus.call(ROOM.bus_name, "Metrics")
    assert "clawos_events_total" in metrics
    (fd,) = await bus.call(ROOM.bus_name, "Subscribe", '{"kinds":["exec"]}')
    world.source.put(x("id"))
    with os.fdopen(fd, "rb") as stream:
        line = await asyncio.to_thread(stream.readline)
    assert json.loads(line)["path"] == "/usr/bin/id"


@pytest.mark.parametrize(
    ("member", "argument", "name"),
    [
        ("Recent", '{"kinds":["nonsense"]}', "FilterInvalid"),
        ("Subscribe", "[]", "FilterInvalid"),
        ("Alerts", '{"severity":"awful"}', "FilterInvalid"),
        ("Trace", '{"call":"nobody"}', "NoSuchCall"),
    ],
)
async def test_errors_have_their_names(
    served: tuple[Bus, Bus], member: str, argument: str, name: str
) -> None:
    with pytest.raises(RemoteError) as refused:
        await served[1].call(ROOM.bus_name, member, argument)
    assert refused.value.error_name == f"org.clawos.Error.{name}"


async def test_a_bad_rule_is_an_error_with_file_and_line(served: tuple[Bus, Bus], world: World) -> None:
    (world.rules / "x.toml").write_text("\n[[rule]]\nid = 5\n")
    with pytest.raises(RemoteError) as refused:
        await served[1].call(ROOM.bus_name, "Reload")
    assert refused.value.error_name == "org.clawos.Error.RulesInvalid"
    assert refused.value.fields == {"file": str(world.rules / "x.toml"), "line": 3}


MEMBERS = ("Subscribe", "Recent", "Alerts", "Reload", "Rules", "Stats", "Metrics", "Status")


@pytest.mark.parametrize("user", ["clawos-agent", "clawos-isolator", "clawos-sandbox", "nobody"])
async def test_only_root_asks(served: tuple[Bus, Bus], call_as: CallAs, user: str) -> None:
    for member in MEMBERS:
        arguments = ["{}"] if member in ("Subscribe", "Recent", "Alerts") else []
        answer = await call_as(user, ROOM.bus_name, member, *arguments)
        assert answer.get("error", "").endswith("AccessDenied"), (member, answer)
    assert "ok" in await call_as("root", ROOM.bus_name, "Status")


async def as_user(bus_address: str, user: str, group: str) -> Bus:
    who = pwd.getpwnam(user)
    before = os.getgroups()
    os.setgroups([who.pw_gid, grp.getgrnam(group).gr_gid])
    os.setresgid(who.pw_gid, who.pw_gid, 0)
    os.setresuid(who.pw_uid, who.pw_uid, 0)
    try:
        return await Bus.connect(bus_address)
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(before)


async def test_a_user_traces_his_own_calls_and_nobody_elses(
    served: tuple[Bus, Bus], world: World, bus_address: str
) -> None:
    world.isolator.run(user=pwd.getpwnam("mail").pw_uid)
    world.source.put(x("id", call=CALL))
    mail = await as_user(bus_address, "mail", "clawos")
    games = await as_user(bus_address, "games", "clawos")
    try:
        await until(lambda: world.monitor.recent(EventFilter(tool="shell.run")))
        found = await ask(mail, "Trace", "{}")
        assert found["programs"][0]["args"] == ["id"]
        for request in ("{}", json.dumps({"call": CALL})):
            with pytest.raises(RemoteError) as refused:
                await games.call(ROOM.bus_name, "Trace", request)
            assert refused.value.error_name.endswith("NoSuchCall")
        with pytest.raises(RemoteError) as denied:
            await mail.call(ROOM.bus_name, "Recent", "{}")
        assert denied.value.error_name.endswith("AccessDenied")
    finally:
        await mail.close()
        await games.close()


async def heard(bus: Bus, told: list[str]) -> None:
    """Listen for alerts."""

    def take(message: Message) -> bool:
        if message.message_type is MessageType.SIGNAL and message.member == "Alert":
            told.append(message.body[0])
        return False

    bus._connection.add_message_handler(take)
    await bus._call_daemon("AddMatch", "s", f"type='signal',interface='{ROOM.bus_name}'")


async def test_alerts_are_heard_by_root_and_administrators_only(
    served: tuple[Bus, Bus], bus_address: str
) -> None:
    server, root = served
    admin = await as_user(bus_address, "mail", "clawos-admin")
    other = await as_user(bus_address, "games", "clawos")
    try:
        told: dict[str, list[str]] = {"root": [], "admin": [], "other": []}
        for name, bus in (("root", root), ("admin", admin), ("other", other)):
            await heard(bus, told[name])
        server.emit("Alert", '{"rule":"x"}')
        await ask(root, "Status")
        await asyncio.sleep(0.3)
        assert told == {"root": ['{"rule":"x"}'], "admin": ['{"rule":"x"}'], "other": []}
    finally:
        await admin.close()
        await other.close()


class Isolator(Interface):
    """`org.clawos.Isolator1`, as far as we ask it."""

    @method
    async def calls(self) -> Str:
        one = {"id": CALL, "tool": "t", "user": 5, "session": "", "ended": False, "later": "field"}
        return json.dumps([one])

    @method
    async def end(self, call: Str, reason: Str) -> Str:
        return json.dumps(call == CALL and reason == "why")


class Agent(Interface):
    """`org.clawos.Agent1`, as far as we ask it."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen: list[str] = []

    @method
    async def freeze(self, session: Str, reason: Str) -> None:
        self.frozen.append(f"{session} {reason}")


async def test_peers_over_the_bus(connect: Connect, bus_address: str) -> None:
    """The real members of the isolator and the agent stand in their own rooms' tests."""
    isolator, agent, client = await connect(), await connect(), await connect()
    await isolator.serve(ISOLATOR, "/" + ISOLATOR.replace(".", "/"), Isolator())
    # Only the agent's own user may have its name.
    with pytest.raises(RemoteError):
        await agent.serve(AGENT, "/" + AGENT.replace(".", "/"), Agent())
    (info,) = await BusIsolator(client).calls()
    assert (info.id, info.user) == (CALL, 5)
    assert await BusIsolator(client).end(CALL, "why") is True
    with pytest.raises(Exception, match="does not answer"):
        await BusAgent(client).freeze("a", "b")


def test_the_snapshot_is_what_we_serve() -> None:
    described = MonitorInterface(None).describe(ROOM.bus_name)  # type: ignore[arg-type] # it is not asked
    assert (SYSTEM / f"{ROOM.bus_name}.xml").read_text().strip() == described.strip()
    assert '<signal name="Alert">' in described


def test_shipped_settings_are_the_defaults() -> None:
    shipped = (SYSTEM / "monitor.toml").read_text()
    settings = "\n".join(line[2:] for line in shipped.splitlines() if line.startswith("# ") and " = " in line)
    parsed = tomllib.loads(settings)
    # What is followed beside sandboxes stands there as an example.
    example = {"cgroup": parsed.pop("cgroup"), "kinds": parsed.pop("kinds")}
    assert msgspec.convert(example, Followed)
    assert set(parsed) == set(Config.__struct_fields__) - {"follow"}
    paths = {"pins": Path(parsed.pop("pins")), "rules": tuple(map(Path, parsed.pop("rules")))}
    assert msgspec.structs.replace(msgspec.convert(parsed, Config), **paths) == Config()
    assert from_toml(SYSTEM / "monitor.toml", Config) == Config()


@pytest.mark.parametrize(
    "text", ["batch = 1", "idle_s = 0", "processes_max = 10", "surprise = 1", "rules = 5"]
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid):
        from_toml(file, Config)


def test_the_unit_holds_no_capability_and_waits_for_the_kernel_side() -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SYSTEM / ROOM.unit)
    assert unit["Service"]["CapabilityBoundingSet"] == unit["Service"]["AmbientCapabilities"] == ""
    assert unit["Service"]["Restart"] == "always"
    assert "clawos-monitor-load.service" in unit["Unit"]["Requires"]
    assert "clawos-monitor-load.service" in unit["Unit"]["After"]
