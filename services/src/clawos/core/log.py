"""Logging: structured journal fields under systemd, plain lines elsewhere.

Log or raise, not both; secrets never reach a log. Fields are given as
`log.info("call finished", extra={"CLAWOS_CALL": call_id})` and found by `journalctl CLAWOS_CALL=…`.
"""

from __future__ import annotations

import logging
import os
import sys


def setup(room: str) -> None:
    """Send the root logger to the journal when systemd connected us to it, else to stderr."""
    root = logging.getLogger()
    root.setLevel(os.environ.get("CLAWOS_LOG", "INFO").upper())
    handler: logging.Handler
    if os.environ.get("JOURNAL_STREAM"):
        from systemd.journal import JournalHandler  # only in the image: a C extension of the journal

        handler = JournalHandler(SYSLOG_IDENTIFIER=f"clawos-{room}", CLAWOS_ROOM=room)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(f"clawos-{room}: %(levelname)s: %(message)s"))
    root.handlers[:] = [handler]
