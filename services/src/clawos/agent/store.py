"""Conversations in SQLite: each change is one transaction, on disk when the method returns.

All of it runs in one thread of its own, so that an fsync never stops the service.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from clawos.agent.conversation import Message, ToolCall
from clawos.agent.events import Status
from clawos.agent.ports import CallEnd, NewCall, StoredSession
from clawos.agent.schema import connect
from clawos.core.errors import Busy
from clawos.core.parse import to_json

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_COMMAND_CHARACTERS = 4_096
"""Of a command run without a model, this much is remembered."""

LOST = "[interrupted: the agent stopped before this call was over]"


class SqliteStore:
    """`ports.Store`."""

    def __init__(self, path: Path, turns_per_session: int) -> None:
        self._path = path
        self._turns_per_session = turns_per_session
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._db: sqlite3.Connection

    @classmethod
    async def open(cls, path: Path, turns_per_session: int) -> Self:
        """Open or make the store; what a crash left running is recorded as interrupted."""
        store = cls(path, turns_per_session)
        await store._in_thread(store._open)
        return store

    async def close(self) -> None:
        await self._in_thread(self._db.close)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                # After some failures, such as a full disk, SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            return result

        # The change is made even if the turn is cancelled meanwhile: what comes next is written after it.
        return await asyncio.shield(self._in_thread(transaction))

    def _open(self) -> None:
        try:
            self._db = connect(self._path)
        except sqlite3.OperationalError:  # a full disk, missing rights: the file itself may be well
            raise
        except sqlite3.DatabaseError as error:
            aside = _put_aside(self._path)
            log.error("the conversations cannot be read (%s); they were put aside as %s", error, aside)
            self._db = connect(self._path)
        self._db.execute("BEGIN IMMEDIATE")
        now = _now_ms()
        rows = self._db.execute(
            "SELECT turn.session, turn.id, call.id, call.tool FROM turn JOIN call ON call.turn = turn.id"
            " WHERE turn.status IS NULL AND call.state IN ('asked', 'running') ORDER BY call.position"
        ).fetchall()
        for session, turn, call, tool in rows:
            _end_call(self._db, session, turn, CallEnd(call, tool, "interrupted", LOST))
        self._db.execute(
            "UPDATE turn SET status = ?, ended_ms = ? WHERE status IS NULL", (Status.INTERRUPTED, now)
        )
        self._db.execute("COMMIT")

    async def open_session(
        self, uid: int, name: str, fresh: bool, max_open: int, keep_closed: int
    ) -> StoredSession:
        def read(db: sqlite3.Connection) -> StoredSession | None:
            row = db.execute(
                "SELECT id, frozen FROM session WHERE uid = ? AND name = ? AND closed_ms IS NULL", (uid, name)
            ).fetchone()
            return StoredSession(row[0], uid, name, row[1]) if row else None

        def write(db: sqlite3.Connection) -> StoredSession:
            # Again, inside of the transaction: two may ask at once, and one session must come of it.
            if not fresh and (found := read(db)):
                return found
            db.execute(
                # Later than all before it, whatever the clock says: the oldest are those that go.
                "UPDATE session SET closed_ms = max(?, (SELECT ifnull(max(closed_ms), 0) + 1 FROM session"
                " WHERE uid = ?)) WHERE uid = ? AND name = ? AND closed_ms IS NULL",
                (_now_ms(), uid, uid, name),
            )
            (count,) = db.execute(
                "SELECT count(*) FROM session WHERE uid = ? AND closed_ms IS NULL", (uid,)
            ).fetchone()
            if count >= max_open:
                raise Busy(f"you have {count} sessions, and no more may be open", "continue one of them")
            db.execute(
                "DELETE FROM session WHERE id IN (SELECT id FROM session WHERE uid = ?"
                " AND closed_ms IS NOT NULL ORDER BY closed_ms DESC LIMIT -1 OFFSET ?)",
                (uid, keep_closed),
            )
            session = StoredSession(secrets.token_hex(8), uid, name)
            db.execute(
                "INSERT INTO session (id, uid, name, created_ms) VALUES (?, ?, ?, ?)",
                (session.id, uid, name, _now_ms()),
            )
            return session

        if not fresh and (found := await self._in_thread(lambda: read(self._db))):
            return found
        return await self._write(write)

    async def find_session(self, session: str) -> StoredSession | None:
        row = await self._in_thread(
            lambda: self._db.execute(
                "SELECT id, uid, name, frozen FROM session WHERE id = ?", (session,)
            ).fetchone()
        )
        return StoredSession(*row) if row else None

    async def set_frozen(self, session: str, reason: str) -> bool:
        def write(db: sqlite3.Connection) -> bool:
            done = db.execute("UPDATE session SET frozen = ? WHERE id = ?", (reason, session))
            return done.rowcount > 0

        return await self._write(write)

    async def frozen_sessions(self) -> list[StoredSession]:
        rows = await self._in_thread(
            lambda: self._db.execute(
                "SELECT id, uid, name, frozen FROM session WHERE frozen != '' ORDER BY created_ms"
            ).fetchall()
        )
        return [StoredSession(*row) for row in rows]

    async def messages(self, session: str, last: int) -> list[Message]:
        def read() -> list[Message]:
            rows = self._db.execute(
                "SELECT role, content, tool_calls, tool, id FROM message WHERE session = ? AND role != 'exec'"
                " ORDER BY id DESC LIMIT ?",
                (session, last),
            ).fetchall()
            edits = _edits(self._db, session)
            return [
                _message(role, content, tool_calls, tool, edits.get(number, {}))
                for role, content, tool_calls, tool, number in reversed(rows)
            ]

        return await self._in_thread(read)

    async def history(self, session: str, last: int) -> list[dict[str, Any]]:
        rows = await self._in_thread(
            lambda: self._db.execute(
                "SELECT m.role, m.content, m.tool_calls, m.tool, m.call, m.time_ms, m.turn,"
                " call.state, call.exit_code, call.edited FROM message m LEFT JOIN call ON call.id = m.call"
                " WHERE m.session = ? ORDER BY m.id DESC LIMIT ?",
                (session, last),
            ).fetchall()
        )
        return [_entry(*row) for row in reversed(rows)]

    async def begin_turn(self, session: str, turn: str, text: str) -> None:
        def write(db: sqlite3.Connection) -> None:
            self._insert_turn(db, session, turn)
            _add_message(db, session, turn, "user", text)

        await self._write(write)

    async def add_answer(self, session: str, turn: str, text: str, calls: Sequence[NewCall]) -> None:
        def write(db: sqlite3.Connection) -> None:
            asked = to_json([ToolCall(tool=call.tool, args=call.arguments) for call in calls])
            _add_message(db, session, turn, "assistant", text, tool_calls=asked)
            db.executemany(
                "INSERT INTO call (id, turn, position, tool, arguments, state)"
                " VALUES (?, ?, ?, ?, ?, 'asked')",
                [(c.id, turn, n, c.tool, to_json(c.arguments)) for n, c in enumerate(calls)],
            )

        await self._write(write)

    async def begin_call(self, call: str, edited: Mapping[str, Any] | None = None) -> None:
        arguments = None if edited is None else to_json(edited)
        await self._write(
            lambda db: db.execute(
                "UPDATE call SET state = 'running', started_ms = ?, edited = ? WHERE id = ?",
                (_now_ms(), arguments, call),
            )
        )

    async def end_calls(self, session: str, turn: str, ends: Sequence[CallEnd]) -> None:
        def write(db: sqlite3.Connection) -> None:
            for end in ends:
                _end_call(db, session, turn, end)

        await self._write(write)

    async def end_turn(self, turn: str, status: Status) -> None:
        await self._write(
            lambda db: db.execute(
                "UPDATE turn SET status = ?, ended_ms = ? WHERE id = ?", (status, _now_ms(), turn)
            )
        )

    async def add_command(self, session: str, turn: str, command: str) -> None:
        def write(db: sqlite3.Connection) -> None:
            self._insert_turn(db, session, turn)
            db.execute("UPDATE turn SET status = ?, ended_ms = started_ms WHERE id = ?", (Status.DONE, turn))
            _add_message(db, session, turn, "exec", command[:MAX_COMMAND_CHARACTERS])

        await self._write(write)

    def _insert_turn(self, db: sqlite3.Connection, session: str, turn: str) -> None:
        db.execute(
            "INSERT INTO turn (id, session, started_ms) SELECT ?, ?, max(?, ifnull(max(started_ms), 0) + 1)"
            " FROM turn WHERE session = ?",
            (turn, session, _now_ms(), session),
        )
        db.execute(
            "DELETE FROM turn WHERE id IN"
            " (SELECT id FROM turn WHERE session = ? ORDER BY started_ms DESC LIMIT -1 OFFSET ?)",
            (session, self._turns_per_session),
        )


def _put_aside(path: Path) -> Path:
    """Keep a damaged store for whoever can mend it. Its log goes with it: it belongs to no other file."""
    aside = path.with_name(f"{path.name}.damaged-{_now_ms()}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(f"{aside}{suffix}")
    return aside


def _edits(db: sqlite3.Connection, session: str) -> dict[int, dict[int, dict[str, Any]]]:
    """The users' own arguments, by the message that asked for the call and its place in that."""
    rows = db.execute(
        "SELECT (SELECT max(asked.id) FROM message asked WHERE asked.turn = call.turn"
        " AND asked.role = 'assistant' AND asked.id < result.id), call.position, call.edited"
        " FROM message result JOIN call ON call.id = result.call"
        " WHERE result.session = ? AND call.edited IS NOT NULL",
        (session,),
    )
    found: dict[int, dict[int, dict[str, Any]]] = {}
    for message, position, edited in rows:
        found.setdefault(message, {})[position] = msgspec.json.decode(edited)
    return found


def _end_call(db: sqlite3.Connection, session: str, turn: str, end: CallEnd) -> None:
    db.execute(
        "UPDATE call SET state = ?, exit_code = ?, ended_ms = ? WHERE id = ?",
        (end.state, end.exit_code, _now_ms(), end.id),
    )
    _add_message(db, session, turn, "tool", end.content, tool=end.tool, call=end.id)


def _add_message(
    db: sqlite3.Connection,
    session: str,
    turn: str,
    role: str,
    content: str,
    *,
    tool_calls: str = "[]",
    tool: str | None = None,
    call: str | None = None,
) -> None:
    db.execute(
        "INSERT INTO message (session, turn, role, content, tool_calls, tool, call, time_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (session, turn, role, content, tool_calls, tool, call, _now_ms()),
    )


def _message(
    role: Any, content: str, tool_calls: str, tool: str | None, edits: Mapping[int, dict[str, Any]]
) -> Message:
    """A message as a model reads it: a call that the user edited is the one that ran."""
    asked = msgspec.json.decode(tool_calls, type=tuple[ToolCall, ...])
    calls = tuple(ToolCall(tool=c.tool, args=edits.get(at, c.args)) for at, c in enumerate(asked))
    return Message(role=role, content=content, tool_calls=calls, tool=tool)


def _entry(
    role: str,
    content: str,
    tool_calls: str,
    tool: str | None,
    call: str | None,
    time_ms: int,
    turn: str,
    state: str | None,
    exit_code: int | None,
    edited: str | None,
) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": role, "content": content, "turn": turn}
    if calls := msgspec.json.decode(tool_calls):
        entry["tool_calls"] = calls
    if call is not None:
        entry |= {"tool": tool, "call": call, "state": state, "exit_code": exit_code}
    if edited is not None:
        entry["edited"] = msgspec.json.decode(edited)
    return entry | {"time": datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
