"""Alerts: what a rule found, in words and with evidence; kept, and written down for after a restart."""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clawos.monitor.detect.language import SEVERITIES, Severity
from clawos.monitor.detect.matchers import Hit
from clawos.monitor.detect.ruleset import Compiled
from clawos.monitor.event import described, utc

log = logging.getLogger(__name__)

KEPT_MAX = 256
"""Of each severity."""
QUIET_MAX = 4096
FILE_BYTES_MAX = 4 * 1024 * 1024
"""Of the file; then it becomes the older one, and the one before that goes."""
PER_SECOND = 50
"""Alerts of one rule; more are counted only."""
_LEVELS = {"info": logging.DEBUG, "low": logging.INFO, "medium": logging.WARNING}


class Reacted(msgspec.Struct, forbid_unknown_fields=True):
    """What was done about it."""

    kind: str
    done: bool
    error: str = ""


class Alert(msgspec.Struct, forbid_unknown_fields=True):
    """One finding. `repeats` grows while the same goes on."""

    id: str
    time: str
    time_ns: int
    rule: str
    title: str
    severity: Severity
    attack: tuple[str, ...]
    message: str
    call: str
    session: str
    tool: str
    user: int | None
    tgid: int
    start_ns: int
    evidence: msgspec.Raw
    """Events, as JSON: most are never looked at again."""
    reactions: list[Reacted] = msgspec.field(default_factory=list)
    repeats: int = 0

    @property
    def rank(self) -> int:
        return SEVERITIES.index(self.severity)

    @property
    def level(self) -> int:
        return _LEVELS.get(self.severity, logging.ERROR)


class Alerts:
    """The alerts of late."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._kept = {severity: deque[Alert](maxlen=KEPT_MAX) for severity in SEVERITIES}
        """By severity: what is ordinary never pushes out what is not."""
        self._quiet: OrderedDict[tuple[str, int, int], Alert] = OrderedDict()
        self._seconds: dict[str, tuple[int, int]] = {}
        self._can_write = True
        self.counts: Counter[str] = Counter()
        """Raised since the start, by severity."""
        self.left_out = 0
        """Of a rule that hit too often in one second."""

    def load(self) -> None:
        """What was written down before; a line that a crash cut short is passed over."""
        if self._file is None:
            return
        for file in (self._file.with_suffix(".old"), self._file):
            try:
                lines = file.read_bytes().splitlines()
            except OSError:
                continue
            for line in lines:
                try:
                    alert = msgspec.json.decode(line, type=Alert)
                    self._kept[alert.severity].append(alert)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue

    def raised(self, compiled: Compiled, hit: Hit, offset_ns: int) -> Alert | None:
        """A new alert; None where the same is known already, or too many come."""
        rule, event = compiled.rule, hit[-1]
        key = (rule.id, event.tgid, event.start_ns)
        known = self._quiet.get(key)
        if known is not None and event.time_ns - known.time_ns < rule.quiet_s * 1e9:
            known.repeats += 1
            return None
        if not self._may(rule.id, event.time_ns):
            self.left_out += 1
            return None
        sandbox = event.process.sandbox if event.process and event.call else None
        alert = Alert(
            id=secrets.token_hex(6),
            time=utc(event.time_ns, offset_ns),
            time_ns=event.time_ns,
            rule=rule.id,
            title=rule.title,
            severity=rule.severity,
            attack=rule.attack,
            message=compiled.message(event),
            call=event.call,
            session=sandbox.session if sandbox else "",
            tool=sandbox.tool if sandbox else "",
            user=sandbox.user if sandbox else None,
            tgid=event.tgid,
            start_ns=event.start_ns,
            evidence=msgspec.Raw(msgspec.json.encode([described(one, offset_ns) for one in hit])),
        )
        self._kept[alert.severity].append(alert)
        self.counts[alert.severity] += 1
        self._quiet[key] = alert
        self._quiet.move_to_end(key)
        if len(self._quiet) > QUIET_MAX:
            self._quiet.popitem(last=False)
        return alert

    def write(self, alert: Alert) -> None:
        """Append it to the file. A full disk costs the file, not the alert."""
        if self._file is None:
            return
        data = msgspec.json.encode(alert) + b"\n"
        try:
            fd = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size_bytes = os.fstat(fd).st_size
                # In one write, and on a line of its own even after one that a full disk cut short.
                if size_bytes and os.pread(fd, 1, size_bytes - 1) != b"\n":
                    data = b"\n" + data
                os.write(fd, data)
            finally:
                os.close(fd)
            if size_bytes > FILE_BYTES_MAX:
                self._file.replace(self._file.with_suffix(".old"))
            self._can_write = True
        except OSError as error:
            if self._can_write:
                log.error("alerts cannot be written down: %s", error.strerror)
            self._can_write = False

    def find(
        self, *, severity: str = "info", call: str = "", session: str = "", rule: str = "", limit: int = 100
    ) -> Sequence[Alert]:
        """The last ones, the newest last."""
        least = SEVERITIES.index(severity)
        found = [
            alert
            for kept in SEVERITIES[least:]
            for alert in self._kept[kept]
            if (not call or alert.call == call)
            and (not session or alert.session == session)
            and (not rule or alert.rule == rule)
        ]
        return sorted(found, key=lambda alert: alert.time)[-limit:]

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def _may(self, rule: str, time_ns: int) -> bool:
        second = time_ns // 1_000_000_000
        began, count = self._seconds.get(rule, (second, 0))
        if began != second:
            count = 0
        self._seconds[rule] = (second, count + 1)
        return count < PER_SECOND
