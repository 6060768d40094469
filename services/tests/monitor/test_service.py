"""The monitor as a whole, between a source that the tests fill and neighbours that remember."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monitor.conftest import SESSION, World
from monitor.events import BEGIN_NS, CALL, connect, happened, read, write, x

from clawos.core.errors import Busy, Unavailable
from clawos.monitor import calls
from clawos.monitor.errors import NoSuchCall, RulesInvalid
from clawos.monitor.filters import AlertFilter, EventFilter, TraceRequest, parsed
from clawos.monitor.subscribe import WAITING_MAX

ANY = EventFilter()
OWN_RULE = """
[[rule]]
id = "own"
title = "Own"
severity = "low"
attack = []
kinds = ["exec"]
match.program = "own-program"
message = "{who} ran it"
react = ["log"]
"""


async def until(is_so: Callable[[], Any], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)


def alerts(world: World, **wanted: Any) -> list[dict[str, Any]]:
    return world.monitor.alerts(AlertFilter(**wanted))


async def test_events_come_through_and_are_kept(world: World) -> None:
    world.source.put(x("id"), read("/home/u/a", call=CALL), connect("10.0.0.1", 80, tgid=9))
    await until(lambda: world.monitor.status()["events"] == 3)
    kinds = [event["kind"] for event in world.monitor.recent(ANY)]
    assert kinds == ["exec", "open", "connect"]
    (event,) = world.monitor.recent(EventFilter(call=CALL))
    assert event["path"] == "/home/u/a"
    assert event["time"].endswith("Z")
    assert [e["kind"] for e in world.monitor.recent(EventFilter(tgid=9))] == ["connect"]
    assert [e["kind"] for e in world.monitor.recent(EventFilter(kinds=("exec",)))] == ["exec"]
    assert [e["kind"] for e in world.monitor.recent(EventFilter(inside=True))] == ["open"]
    assert len(world.monitor.recent(EventFilter(limit=1))) == 1


async def test_events_are_found_by_time_and_session(world: World) -> None:
    world.isolator.run()
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    world.source.put(
        x("old", time_ns=now_ns - 3600 * 10**9), x("new", time_ns=now_ns), x("in", call=CALL, time_ns=now_ns)
    )
    await until(lambda: len(world.monitor.recent(EventFilter(session=SESSION))) == 1)
    minute_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    assert {e["path"] for e in world.monitor.recent(EventFilter(since=minute_ago))} == {
        "/usr/bin/new",
        "/usr/bin/in",
    }
    assert {e["path"] for e in world.monitor.recent(EventFilter(until=minute_ago))} == {"/usr/bin/old"}
    assert len(world.monitor.recent(EventFilter(tool="shell.run"))) == 1
    assert world.monitor.recent(EventFilter(tool="other")) == []


async def test_a_call_gets_its_tool_user_and_session(world: World) -> None:
    world.isolator.run()
    world.source.put(x("id", call=CALL))
    await until(lambda: world.monitor.recent(EventFilter(tool="shell.run")))
    assert world.monitor.recent(ANY)[0]["session"] == SESSION


async def test_an_alert_ends_the_sandbox_freezes_the_session_and_is_told(world: World) -> None:
    world.isolator.run()
    world.source.put(connect("10.0.0.1", 4443, call=CALL), x("/bin/sh -i", call=CALL))
    await until(lambda: world.signals)
    (found,) = alerts(world, rule="reverse-shell")
    assert world.isolator.ended == [
        (CALL, "reverse-shell: A process that had connected to the network became a shell")
    ]
    assert world.agent.frozen[0][0] == SESSION
    assert [(r.kind, r.done) for r in found["reactions"]] == [("kill", True), ("freeze", True)]
    told = [json.loads(text) for text in world.signals]
    assert "reverse-shell" in [one["rule"] for one in told]
    assert world.monitor.stats()["reactions"]["kill done"] == 1


async def test_outside_of_a_sandbox_nothing_is_ended(world: World) -> None:
    world.source.put(connect("10.0.0.1", 4443), x("/bin/sh -i"))
    await until(lambda: alerts(world, rule="reverse-shell"))
    assert (world.isolator.ended, world.agent.frozen) == ([], [])
    assert alerts(world, rule="reverse-shell")[0]["reactions"] == []


async def test_a_reaction_that_fails_is_said_and_the_alert_stands(world: World) -> None:
    world.isolator.error = Unavailable("org.clawos.Isolator1 does not answer")
    world.source.put(x("x", path="/memfd:x (deleted)", links=0, call=CALL))
    await until(lambda: world.signals)
    (found,) = alerts(world, rule="memory-exec")
    (reacted,) = found["reactions"]
    assert (reacted.done, reacted.error) == (False, "org.clawos.Isolator1 does not answer")
    assert world.monitor.stats()["reactions"]["kill failed"] == 1


async def test_a_log_rule_sends_no_signal(world: World) -> None:
    world.source.put(x("/tmp/a.out"))
    await until(lambda: alerts(world, rule="temporary-exec"))
    assert world.signals == []


async def test_lost_events_are_told(world: World) -> None:
    world.source.lost_by_kind["open"] = 5
    await until(lambda: alerts(world, rule="lost-events"))
    assert alerts(world)[0]["message"] == "5 events of the kind open were lost"
    assert world.monitor.stats()["lost_by_kind"] == {"open": 5}


async def test_rules_are_reloaded_and_a_bad_file_changes_nothing(world: World) -> None:
    file = world.rules / "own.toml"
    before = world.monitor.status()["rules"]
    file.write_text(OWN_RULE)
    assert world.monitor.reload() == {"rules": before + 1}
    file.write_text(OWN_RULE.replace("exec", "execute"))
    with pytest.raises(RulesInvalid) as refused:
        world.monitor.reload()
    assert f"{file}, line 7" in refused.value.message
    assert world.monitor.status()["rules"] == before + 1
    world.source.put(x("own-program"))
    await until(lambda: alerts(world, rule="own"))


async def test_counts_go_on_when_rules_are_reloaded_with_what_was_seen(world: World) -> None:
    (world.rules / "own.toml").write_text(OWN_RULE + "first = ['program']\n")
    world.monitor.reload()
    world.source.put(x("own-program", tgid=1))
    await until(lambda: alerts(world, rule="own"))
    world.monitor.reload()
    world.source.put(x("own-program", tgid=2), x("busybox", tgid=3))
    await until(lambda: world.monitor.status()["events"] == 3)
    assert len(alerts(world, rule="own")) == 1


async def test_the_clock_may_jump(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows count by the time since boot; what people read follows the clock as it is now."""
    world.source.put(x("before"))
    await until(lambda: world.monitor.status()["events"] == 1)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 10 * 365 * 86400 * 10**9)
    world.source.put(*(happened("rename", path=f"/a{n}", to=f"/a{n}.locked") for n in range(10)))
    await until(lambda: alerts(world, rule="ransom-names"))
    assert all(event["time"] < "2020" for event in world.monitor.recent(ANY))


# Trace


async def test_a_trace_is_the_callers_own(world: World) -> None:
    world.isolator.run()
    world.source.put(
        x("sh -c 'cat a > b'", call=CALL),
        read("/home/u/a", call=CALL),
        write("/home/u/b", call=CALL),
        happened("unlink", path="/home/u/c", call=CALL),
        connect("198.19.255.1", 8118, call=CALL),
    )
    await until(lambda: world.monitor.recent(EventFilter(session=SESSION)))
    found = world.monitor.trace(TraceRequest(session=SESSION), 1000)
    assert found == world.monitor.trace(TraceRequest(call=CALL), 1000)
    assert (found.call, found.tool, found.user, found.complete) == (CALL, "shell.run", 1000, True)
    assert found.programs[0].args == ("sh", "-c", "cat a > b")
    assert (found.files.read, found.files.written, found.files.removed) == (
        ("/home/u/a",),
        ("/home/u/b",),
        ("/home/u/c",),
    )
    assert found.connections == ("connected to 198.19.255.1 port 8118",)
    assert world.monitor.trace(TraceRequest(), 0).call == CALL, "root sees all"
    for request in (TraceRequest(), TraceRequest(call=CALL), TraceRequest(call="no such")):
        with pytest.raises(NoSuchCall):
            world.monitor.trace(request, 1001)


async def test_a_trace_says_when_it_is_not_all(world: World) -> None:
    world.isolator.run()
    world.source.put(*(read(f"/home/u/{n}", call=CALL) for n in range(2000)))
    await until(lambda: world.monitor.recent(EventFilter(session=SESSION)))
    assert not world.monitor.trace(TraceRequest(), 1000).complete


# Subscribers


def lines_of(fd: int) -> list[dict[str, Any]]:
    os.set_blocking(fd, False)
    data = b""
    try:
        while chunk := os.read(fd, 1 << 20):
            data += chunk
    except BlockingIOError:
        pass
    whole = data.rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


async def test_a_subscriber_gets_what_he_asked_for(world: World) -> None:
    fd = world.monitor.subscribe(EventFilter(kinds=("exec",), alerts=True))
    world.source.put(x("id"), read("/x"), x("/tmp/a.out"))
    await until(lambda: alerts(world, rule="temporary-exec"))
    await asyncio.sleep(0.1)
    found = lines_of(fd)
    assert [line["kind"] for line in found if line["kind"] != "alert"] == ["exec", "exec"]
    assert "temporary-exec" in [line.get("rule") for line in found]
    os.close(fd)
    await until(lambda: world.monitor.status()["subscribers"] == 0)


async def test_a_slow_subscriber_loses_events_is_told_and_holds_nobody_up(world: World) -> None:
    slow = world.monitor.subscribe(EventFilter(kinds=("open",)))
    quick = world.monitor.subscribe(EventFilter(kinds=("exec",)))
    count = 3 * WAITING_MAX
    for n in range(count):
        world.source.put(read(f"/home/u/{n:0200}"))
    world.source.put(x("id"))
    await until(lambda: world.monitor.status()["events"] == count + 1)
    await asyncio.sleep(0.1)
    assert [line["kind"] for line in lines_of(quick)] == ["exec"]
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + 20
    os.set_blocking(slow, False)
    data = b""
    while time.monotonic() < deadline and b'"of":"subscriber"' not in data:
        try:
            data += os.read(slow, 1 << 20)
        except BlockingIOError:
            await asyncio.sleep(0.01)
    found = [json.loads(line) for line in data.splitlines()]
    (lost,) = [line for line in found if line["kind"] == "lost"]
    assert lost["count"] > 0
    assert lost["count"] + len(found) - 1 == count, "each is there, or counted"
    assert f"clawos_subscriber_lost_total {lost['count']}\n" in world.monitor.metrics()


async def test_subscribers_are_bounded(world: World) -> None:
    fds = [world.monitor.subscribe(ANY) for _ in range(3)]
    with pytest.raises(Busy):
        world.monitor.subscribe(ANY)
    os.close(fds.pop())
    await until(lambda: world.monitor.status()["subscribers"] == 2)
    fds.append(world.monitor.subscribe(ANY))
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    "text",
    [
        '{"kinds": ["nonsense"]}',
        '{"since": "yesterday"}',
        '{"limit": 0}',
        '{"surprise": 1}',
        "[]",
        "{",
        '{"call": 5}',
    ],
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    from clawos.monitor.errors import FilterInvalid

    with pytest.raises(FilterInvalid):
        parsed(text, EventFilter, "wanted")


# What is learnt


async def test_calls_are_learnt_from_when_they_end_and_kept(world: World, tmp_path: Path) -> None:
    for n in range(20):
        call = f"{n:016x}"
        world.isolator.run(call, "file.read")
        world.source.put(x("cat a", call=call, tgid=100 + n))
        await until(lambda: not world.monitor._sandboxes.untold)
        world.isolator.is_over(call)
    await until(lambda: world.monitor._engine.baseline.written().get("file.read", None) is not None)
    await until(lambda: world.monitor._engine.baseline.written()["file.read"].calls == 20)
    world.isolator.run(CALL, "file.read")
    world.source.put(x("nc a 80", call=CALL, tgid=900), connect("10.0.0.9", 80, call=CALL, tgid=900))
    await until(lambda: alerts(world, rule="unusual-call"))
    assert "ran /usr/bin/nc" in alerts(world, rule="unusual-call")[0]["message"]
    await world.monitor.close()
    known = json.loads((world.state_dir / "known.json").read_text())
    assert known["tools"]["file.read"]["calls"] == 20


async def test_a_call_that_the_isolator_still_starts_is_asked_for_again(world: World) -> None:
    world.source.put(x("id", call=CALL))
    await until(lambda: world.isolator.asked >= 2)
    world.isolator.run()
    await until(lambda: world.monitor.recent(EventFilter(session=SESSION)))


async def test_a_cgroup_that_the_isolator_does_not_know_teaches_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_STARTING_S", 0.2)
    world.source.put(x("nc a 80", call=CALL))
    await until(lambda: world.isolator.asked and not world.monitor._sandboxes.running())
    assert world.monitor._engine.baseline.written() == {}
    with pytest.raises(NoSuchCall):
        world.monitor.trace(TraceRequest(), 1000)


# Load


async def test_ten_thousand_processes_and_a_flood_keep_memory_bounded(world: World) -> None:
    for n in range(10_000):
        world.source.waiting.append(x(f"/usr/bin/p{n}", tgid=n, time_ns=BEGIN_NS + n))
    world.source.put(*(read(f"/home/u/{n % 999}", tgid=n % 10_000, call=CALL) for n in range(60_000)))
    await until(lambda: world.monitor.status()["events"] == 70_000, 60)
    stats = world.monitor.stats()
    assert stats["processes"] >= 10_000
    assert stats["events_kept"] < 20_000
    assert world.monitor.recent(EventFilter(kinds=("exec",), limit=5000)), "no flood pushes out what is rare"
