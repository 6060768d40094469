"""The layout of the conversation store, one step a version; a step that was shipped is never edited."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from clawos.agent.errors import StoreTooNew

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE session (
        id         TEXT PRIMARY KEY,
        uid        INTEGER NOT NULL,
        name       TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        closed_ms  INTEGER               -- a fresh session took the name
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX session_open ON session (uid, name) WHERE closed_ms IS NULL;

    CREATE TABLE turn (
        id         TEXT PRIMARY KEY,
        session    TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
        started_ms INTEGER NOT NULL,
        ended_ms   INTEGER,
        status     TEXT                  -- NULL while it runs
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX turn_session ON turn (session, started_ms);
    CREATE INDEX turn_running ON turn (id) WHERE status IS NULL;

    CREATE TABLE message (
        id         INTEGER PRIMARY KEY,
        session    TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
        turn       TEXT NOT NULL REFERENCES turn ON DELETE CASCADE,
        role       TEXT NOT NULL,
        content    TEXT NOT NULL,
        tool_calls TEXT NOT NULL DEFAULT '[]',
        tool       TEXT,
        call       TEXT,
        time_ms    INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX message_session ON message (session, id);
    CREATE INDEX message_turn ON message (turn);

    CREATE TABLE call (
        id         TEXT PRIMARY KEY,
        turn       TEXT NOT NULL REFERENCES turn ON DELETE CASCADE,
        position   INTEGER NOT NULL,     -- within the answer that asked for it
        tool       TEXT NOT NULL,
        arguments  TEXT NOT NULL,
        state      TEXT NOT NULL,        -- asked, running, done, failed, invalid, refused, interrupted
        exit_code  INTEGER,
        started_ms INTEGER,
        ended_ms   INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX call_turn ON call (turn);
    """,
    # The arguments that the user put in place of the model's before the call ran.
    "ALTER TABLE call ADD COLUMN edited TEXT;",
    # Why the session may make no call.
    "ALTER TABLE session ADD COLUMN frozen TEXT NOT NULL DEFAULT '';",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the store at its newest layout, migrating an older one. Raises StoreTooNew."""
    # One thread uses it, but not the one that opens it.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    # What a method of the store has said is there after a power cut, too.
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=ON")
    # Our own memory matters more than a cache that a few conversations never fill (negative: KiB).
    db.execute("PRAGMA cache_size=-512")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(STEPS):
        raise StoreTooNew(
            f"{path} has layout {version}, this version knows {len(STEPS)}", "boot the later version again"
        )
    for number, step in enumerate(STEPS[version:], version + 1):
        # The version is set in the same transaction as the step, so that a crash leaves one or the other.
        db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version={number}; COMMIT;")
