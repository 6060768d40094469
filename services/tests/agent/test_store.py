"""The conversation store: what it has said is on disk stays there, whatever kills the process."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from clawos.agent import schema
from clawos.agent.errors import StoreTooNew
from clawos.agent.events import Status
from clawos.agent.ports import CallEnd, NewCall
from clawos.agent.store import LOST, SqliteStore
from clawos.core.errors import Busy

SRC = Path(__file__).parents[2] / "src"


async def _store(tmp_path: Path, turns: int = 1000) -> SqliteStore:
    return await SqliteStore.open(tmp_path / "agent.db", turns)


_WRITER = """
import asyncio, sys
from pathlib import Path
from clawos.agent.events import Status
from clawos.agent.ports import CallEnd, NewCall
from clawos.agent.store import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), 100_000)
    session = await store.open_session(1000, "default", False, 8, 8)
    for n in range(100_000):
        turn, call = f"t{n}", f"c{n}"
        await store.begin_turn(session.id, turn, f"question {n}")
        calls = [NewCall(call, "time.now", {}), NewCall(call + "b", "x.y", {})]
        await store.add_answer(session.id, turn, "", calls)
        await store.begin_call(call)
        print(f"running {n}", flush=True)
        await store.end_calls(session.id, turn, [CallEnd(call, "time.now", "done", "noon", 0)])
        await store.end_calls(session.id, turn, [CallEnd(call + "b", "x.y", "done", "", 0)])
        await store.end_turn(turn, Status.DONE)
        print(f"done {n}", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.007, 0.03])
async def test_kill_9_loses_nothing_that_was_said_and_leaves_nothing_half(
    tmp_path: Path, delay_s: float
) -> None:
    path = tmp_path / "agent.db"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _WRITER,
        path,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    said = [await child.stdout.readline() for _ in range(9)]  # ends on "running 4"
    await asyncio.sleep(delay_s)
    child.send_signal(signal.SIGKILL)
    said += (await child.stdout.read()).splitlines(keepends=True)
    await child.wait()
    kind, number = max(line.split() for line in said if line.endswith(b"\n") and line.startswith(b"done"))
    assert kind == b"done"

    store = await _store(tmp_path)
    session = await store.open_session(1000, "default", False, 8, 8)
    history = await store.history(session.id, 100_000)
    await store.close()
    turns: dict[str, list[str]] = {}
    for message in history:
        turns.setdefault(message["turn"], []).append(message["role"])
    done = {
        f"t{n}" for n in range(max(int(line.split()[1]) for line in said if line.startswith(b"done")) + 1)
    }
    assert done <= set(turns)
    for turn in done:
        assert turns[turn] == ["user", "assistant", "tool", "tool"]
    for roles in turns.values():
        assert roles in (["user"], ["user", "assistant", "tool", "tool"])
    assert int(number) >= 3
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    assert db.execute("SELECT count(*) FROM call WHERE state IN ('asked', 'running')").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM turn WHERE status IS NULL").fetchone() == (0,)
    db.close()


async def test_call_that_a_crash_interrupted_is_recorded_as_such(tmp_path: Path) -> None:
    store = await _store(tmp_path)
    session = await store.open_session(7, "default", False, 8, 8)
    await store.begin_turn(session.id, "t", "delete a, then b")
    await store.add_answer(
        session.id,
        "t",
        "",
        [NewCall("c1", "file.delete", {"path": "a"}), NewCall("c0", "file.delete", {"path": "b"})],
    )
    await store.begin_call("c1")
    # No close: what another process sees now is what a crash leaves.
    after = await _store(tmp_path)
    history = await after.history(session.id, 10)
    assert [(m["role"], m.get("call"), m.get("state")) for m in history] == [
        ("user", None, None),
        ("assistant", None, None),
        ("tool", "c1", "interrupted"),
        ("tool", "c0", "interrupted"),
    ]
    assert history[2]["content"] == LOST
    assert [m.role for m in await after.messages(session.id, 10)] == ["user", "assistant", "tool", "tool"]
    await after.close()
    await store.close()


async def test_both_versions_of_an_edited_call_are_kept(tmp_path: Path) -> None:
    store = await _store(tmp_path)
    session = await store.open_session(7, "default", False, 8, 8)
    await store.begin_turn(session.id, "t", "restart the web server, then look at it")
    asked = [
        NewCall("c0", "unit.restart", {"unit": "nginx"}),
        NewCall("c1", "unit.status", {"unit": "nginx"}),
    ]
    await store.add_answer(session.id, "t", "", asked)
    await store.begin_call("c0", {"unit": "apache2"})
    await store.begin_call("c1")
    await store.end_calls(session.id, "t", [CallEnd(c.id, c.tool, "done", "", 0) for c in asked])
    history = await store.history(session.id, 10)
    await store.close()
    assert [call["args"] for call in history[1]["tool_calls"]] == [{"unit": "nginx"}] * 2
    assert history[2]["edited"] == {"unit": "apache2"}
    assert "edited" not in history[3]


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    db = schema.connect(tmp_path / "agent.db")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert db.execute("PRAGMA user_version").fetchone() == (len(schema.STEPS),)
    db.close()


async def test_older_layout_is_migrated_and_a_broken_step_leaves_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.db"
    store = await _store(tmp_path)
    session = await store.open_session(7, "default", False, 8, 8)
    await store.close()
    shipped = schema.STEPS
    monkeypatch.setattr(schema, "STEPS", (*shipped, "ALTER TABLE session ADD label TEXT; SELECT * FROM no;"))
    with pytest.raises(sqlite3.OperationalError):
        schema.connect(path)
    monkeypatch.setattr(schema, "STEPS", (*shipped, "ALTER TABLE session ADD label TEXT DEFAULT 'x';"))
    db = schema.connect(path)
    assert db.execute("SELECT id, label FROM session").fetchall() == [(session.id, "x")]
    assert db.execute("PRAGMA user_version").fetchone() == (len(shipped) + 1,)
    db.close()


async def test_store_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    db = schema.connect(tmp_path / "agent.db")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreTooNew, match="layout 99"):
        schema.connect(tmp_path / "agent.db")


async def test_damaged_store_is_put_aside_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "agent.db").write_bytes(b"no database" * 1000)
    store = await _store(tmp_path)
    assert await store.find_session("x") is None
    await store.close()
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    (aside,) = tmp_path.glob("agent.db.damaged-*")
    assert aside.read_bytes().startswith(b"no database")


async def test_failed_change_changes_nothing(tmp_path: Path) -> None:
    store = await _store(tmp_path)
    session = await store.open_session(7, "default", False, 8, 8)
    await store.begin_turn(session.id, "t", "one")
    with pytest.raises(sqlite3.IntegrityError):
        await store.begin_turn(session.id, "t", "the same turn again")
    with pytest.raises(sqlite3.IntegrityError):
        await store.begin_turn("nobody's", "t2", "no such session")
    assert [m.content for m in await store.messages(session.id, 10)] == ["one"]
    await store.end_turn("t", Status.DONE)
    await store.close()


async def test_old_turns_and_closed_sessions_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the order in which they came, also where the clock stands or goes back."""
    times = itertools.count(1_800_000_000_000_000_000, -7_000_000)
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    store = await _store(tmp_path, turns=2)
    first = await store.open_session(7, "default", False, 8, 1)
    for n in range(4):
        await store.add_command(first.id, f"t{n}", f"command {n}")
    assert [m["content"] for m in await store.history(first.id, 10)] == ["command 2", "command 3"]
    second = await store.open_session(7, "default", True, 8, 1)
    assert await store.find_session(first.id) == first
    await store.open_session(7, "default", True, 8, 1)
    await store.open_session(7, "default", True, 8, 1)
    assert await store.find_session(first.id) is None
    assert await store.history(first.id, 10) == []
    assert second != first
    await store.close()


async def test_open_sessions_are_limited_for_each_user(tmp_path: Path) -> None:
    store = await _store(tmp_path)
    await store.open_session(7, "a", False, 1, 1)
    with pytest.raises(Busy):
        await store.open_session(7, "b", False, 1, 1)
    await store.open_session(8, "b", False, 1, 1)
    await store.close()


async def test_end_of_a_call_is_its_result_in_the_conversation(tmp_path: Path) -> None:
    store = await _store(tmp_path)
    session = await store.open_session(7, "a", False, 8, 8)
    await store.begin_turn(session.id, "t", "time?")
    await store.add_answer(session.id, "t", "", [NewCall("c", "time.now", {})])
    await store.end_calls(session.id, "t", [CallEnd("c", "time.now", "failed", "no clock", 3)])
    last = (await store.history(session.id, 10))[-1]
    assert (last["state"], last["exit_code"], last["content"]) == ("failed", 3, "no clock")
    assert last["time"].endswith("+00:00")
    await store.close()
