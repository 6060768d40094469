"""The bus face: the frozen contract, and who may call."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from clawos.core.bus import Bus
from clawos.core.errors import RemoteError
from clawos.isolator.config import ROOM, Config
from clawos.isolator.errors import SandboxRefused, SpecInvalid
from clawos.isolator.group import GroupHandle
from clawos.isolator.interface import IsolatorInterface
from clawos.isolator.service import Handle, Isolator
from clawos.isolator.spec import CALLS_MAX

from .conftest import ISOLATOR, finish, read_all, spec_text

pytestmark = pytest.mark.processes

Connect = Callable[[], Awaitable[Bus]]
NAME = ROOM.bus_name


@pytest.fixture
def config(config: Config) -> Config:
    return msgspec.structs.replace(
        config, running_max=56, user_running_max=56, queued_max=256, user_queued_max=256
    )


@pytest.fixture
async def served(isolator: Isolator, connect: Connect) -> Bus:
    server = await connect()
    await server.serve(NAME, ROOM.object_path, IsolatorInterface(isolator, server))
    return await connect()


async def run(bus: Bus, *argv: str, **spec: Any) -> Handle:
    stdin = os.open(os.devnull, os.O_RDONLY)
    try:
        return Handle(*await bus.call(NAME, "Run", spec_text(*argv, **spec), fds=(stdin,)))
    finally:
        os.close(stdin)


async def test_a_call_over_the_bus(served: Bus) -> None:
    ran = await finish(await run(served, "/bin/sh", "-c", "echo hello; exit 7"))
    assert (ran.stdout, ran.exit_code) == ("hello\n", 7)


async def test_errors_have_their_names(served: Bus) -> None:
    with pytest.raises(RemoteError) as invalid:
        await run(served, "true")
    assert invalid.value.is_a(SpecInvalid)
    with pytest.raises(RemoteError) as refused:
        await run(served, "/usr/bin/no-such-program")
    assert refused.value.is_a(SandboxRefused)
    assert refused.value.fields["step"] == "exec"


async def test_plan_and_status_are_json(served: Bus) -> None:
    (plan,) = await served.call(NAME, "Plan", spec_text("/usr/bin/true"))
    assert {m["path"] for m in json.loads(plan)["mounts"]} >= {"/usr", "/proc", "/tmp"}
    (status,) = await served.call(NAME, "Status")
    assert set(json.loads(status)) == {
        "running",
        "queued",
        "backend",
        "landlock_abi",
        "namespaces",
        "cgroup",
    }


async def test_a_caller_who_leaves_the_bus_takes_his_calls_along(served: Bus, isolator: Isolator) -> None:
    call = await run(served, "/usr/bin/sleep", "1007")
    assert isolator.status()["running"] == 1
    await served.close()
    assert (await finish(call)).result["limit"] == "cancelled"


async def run_group(bus: Bus, how: str, *scripts: str) -> GroupHandle:
    calls = [
        {"tool": "test.tool", "argv": ["/bin/sh", "-c", script], "stdin": how == "chain" and index > 0}
        for index, script in enumerate(scripts)
    ]
    stdin = os.open(os.devnull, os.O_RDONLY)
    try:
        return GroupHandle(
            *await bus.call(NAME, "RunGroup", json.dumps({"how": how, "calls": calls}), fds=(stdin,))
        )
    finally:
        os.close(stdin)


async def read_lines(fd: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await asyncio.to_thread(read_all, fd)).splitlines()]


async def test_a_chain_over_the_bus(served: Bus) -> None:
    group = await run_group(served, "chain", "echo one; echo two", "grep o", "wc -l")
    assert (len(group.stdout), len(group.stderr)) == (1, 3)
    outputs = [await asyncio.to_thread(read_all, fd) for fd in (*group.stdout, *group.stderr)]
    assert outputs == [b"2\n", b"", b"", b""]
    lines = await read_lines(group.result)
    assert [(line["type"], line.get("call")) for line in lines].count(("done", None)) == 1
    assert lines[-1]["failed"] is None
    assert set(lines[0]) == {
        *("type", "call", "id", "cut", "exit_code", "signal", "limit", "wall_s", "cpu_s"),
        *("peak_memory_bytes", "peak_pids", "out_of_memory", "landlock_abi", "cgroup_id"),
    }


async def test_as_many_calls_as_a_message_has_room_for(served: Bus) -> None:
    group = await run_group(served, "parallel", *(f"echo {n}; echo e{n} >&2" for n in range(CALLS_MAX)))
    assert len({*group.stdout, *group.stderr, group.result}) == 2 * CALLS_MAX + 1
    for number in range(CALLS_MAX):
        assert await asyncio.to_thread(read_all, group.stdout[number]) == f"{number}\n".encode()
        assert await asyncio.to_thread(read_all, group.stderr[number]) == f"e{number}\n".encode()
    assert len(await read_lines(group.result)) == CALLS_MAX + 1


async def test_many_groups_at_once(served: Bus) -> None:
    """More descriptors under way than the bus holds for one connection at a time."""

    async def group(number: int) -> list[bytes]:
        made = await run_group(served, "parallel", *(f"echo {number}" for _ in range(CALLS_MAX)))
        outputs = [await asyncio.to_thread(read_all, fd) for fd in (*made.stdout, *made.stderr)]
        assert (await read_lines(made.result))[-1]["failed"] is None
        return outputs[:CALLS_MAX]

    ended = await asyncio.wait_for(asyncio.gather(*map(group, range(24))), 100)
    assert ended == [[f"{number}\n".encode()] * CALLS_MAX for number in range(24)]


async def test_a_caller_who_leaves_the_bus_takes_his_group_along(served: Bus, isolator: Isolator) -> None:
    group = await run_group(served, "chain", "sleep 1030", "sleep 1031")
    assert isolator.status()["running"] == 2
    await served.close()
    lines = await read_lines(group.result)
    assert [line["limit"] for line in lines[:-1]] == ["cancelled"] * 2
    for fd in (*group.stdout, *group.stderr):
        os.close(fd)


async def test_cancel_over_the_bus(served: Bus) -> None:
    call = await run(served, "/usr/bin/sleep", "1008")
    await served.call(NAME, "Cancel", call.id)
    assert (await finish(call)).result["limit"] == "cancelled"


async def test_many_calls_at_once(served: Bus) -> None:
    calls = await asyncio.gather(*(run(served, "/bin/sh", "-c", f"echo {i}") for i in range(8)))
    assert [(await finish(call)).stdout for call in calls] == [f"{i}\n" for i in range(8)]


@pytest.mark.parametrize(
    ("user", "may"), [("root", True), ("clawos-agent", True), ("clawos-sandbox", False), ("nobody", False)]
)
async def test_who_may_call(
    served: Bus, call_as: Callable[..., Awaitable[dict[str, Any]]], user: str, may: bool
) -> None:
    for member in (("Status",), ("Plan", spec_text("/usr/bin/true")), ("Cancel", "x")):
        answer = await call_as(user, NAME, *member)
        assert ("ok" in answer) == may, answer
        if not may:
            assert answer["error"] == "org.freedesktop.DBus.Error.AccessDenied"


def test_the_snapshot_is_what_we_serve(isolator: Isolator) -> None:
    class NoBus:
        pass

    described = IsolatorInterface(isolator, NoBus()).describe(NAME)  # type: ignore[arg-type] # only described
    assert (ISOLATOR / "system" / f"{NAME}.xml").read_text().strip() == described.strip()


async def calls_of(bus: Bus) -> dict[str, dict[str, Any]]:
    (text,) = await bus.call(NAME, "Calls")
    return {call["id"]: call for call in json.loads(text)}


async def test_whose_calls_run_and_whose_are_over(served: Bus) -> None:
    session = "0123456789abcdef"
    call = await run(served, "/usr/bin/sleep", "1009", session=session, home_owner=1000)
    told = {"id": call.id, "tool": "test.tool", "user": 1000, "session": session, "ended": False}
    assert (await calls_of(served))[call.id] == told
    await served.call(NAME, "Cancel", call.id)
    await finish(call)
    assert (await calls_of(served))[call.id] == told | {"ended": True}
    group = await run_group(served, "parallel", "true", "true")
    for fd in (*group.stdout, *group.stderr):
        await asyncio.to_thread(read_all, fd)
    await read_lines(group.result)
    assert {f"{group.id}-0", f"{group.id}-1"} <= set(await calls_of(served))


async def test_calls_that_are_over_are_told_of_for_a_while_only(served: Bus) -> None:
    for _ in range(40):
        made = await asyncio.gather(*(run(served, "/bin/true") for _ in range(7)))
        for call in made:
            await finish(call)
    assert len(await calls_of(served)) == 256


async def test_anybodys_call_is_ended_with_a_reason(
    served: Bus, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    call = await run(served, "/usr/bin/sleep", "1010")
    monitor = await connect()  # not who began it
    assert await monitor.call(NAME, "End", call.id, "a rule\nsaid so") == ["true"]
    result = (await finish(call)).result
    assert (result["limit"], result["exit_code"]) == ("monitor", None)
    assert await monitor.call(NAME, "End", call.id, "again") == ["false"]
    (line,) = [record for record in caplog.records if "ended by the monitor" in record.message]
    assert line.message == "ended by the monitor: a rule?said so"
    assert line.__dict__["CLAWOS_CALL"] == call.id


async def test_only_the_monitor_ends_anybodys_call(
    served: Bus, call_as: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    for user, may in (("root", True), ("clawos-monitor", True), ("clawos-agent", False), ("nobody", False)):
        answer = await call_as(user, NAME, "End", "x", "y")
        assert ("ok" in answer) == may, (user, answer)
    for member in (("Status",), ("Plan", spec_text("/usr/bin/true")), ("Cancel", "x")):
        denied = await call_as("clawos-monitor", NAME, *member)
        assert denied["error"] == "org.freedesktop.DBus.Error.AccessDenied"
    assert "ok" in await call_as("clawos-monitor", NAME, "Calls")


# Whoever leaves the interface out of a message must not get past a rule that names it.
_WITHOUT_INTERFACE = """
import asyncio, os, sys
from dbus_fast import BusType, Message
from dbus_fast.aio import MessageBus
uid, address, name, member = int(sys.argv[1]), *sys.argv[2:]
os.setgroups([]); os.setgid(uid); os.setuid(uid)
async def main():
    bus = await MessageBus(bus_address=address, bus_type=BusType.SYSTEM).connect()
    path = "/" + name.replace(".", "/")
    message = Message(destination=name, path=path, member=member, signature="ss", body=["x", "y"])
    print((await bus.call(message)).error_name)
asyncio.run(main())
"""


async def test_a_message_without_an_interface_ends_nothing(served: Bus, bus_address: str) -> None:
    for user, error in (("root", "None"), ("clawos-agent", "org.freedesktop.DBus.Error.AccessDenied")):
        uid = str(pwd.getpwnam(user).pw_uid)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _WITHOUT_INTERFACE, uid, bus_address, NAME, "End"),
            env={**os.environ, "PYTHONPATH": str(ISOLATOR.parents[1])},
            stdout=asyncio.subprocess.PIPE,
        )
        stdout, _ = await process.communicate()
        assert stdout.decode().strip() == error, user
