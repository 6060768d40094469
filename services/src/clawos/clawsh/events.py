"""Events of a turn, parsed: an `Event` has every field that its type promises (docs/specs/bus.md), of the
right type."""

from __future__ import annotations

import json

from clawos.core.errors import ClawError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ANY_TEXT = (str, type(None))
_ANY_NUMBER = (int, type(None))
_SIGNAL = (int, str, type(None))  # by number or by name
_CALL = {"call": str, "tool": str, "args": dict, "class": str, "summary": str}
FIELDS: dict[str, dict[str, Any]] = {
    "state": {"state": str},
    "text": {"text": str},
    "tool_call": _CALL,
    "approval_required": {**_CALL, "asks": str},
    "call_edited": _CALL,
    "tool_output": {"call": str, "text": str},
    "tool_result": {
        "call": str,
        "tool": str,
        "ok": bool,
        "exit_code": _ANY_NUMBER,
        "signal": _SIGNAL,
        "limit": _ANY_TEXT,
        "output": str,
        "truncated": bool,
        "wall_s": (int, float),
    },
    "error": {"name": str, "message": str, "hint": str},
    "done": {"status": str, "model": _ANY_TEXT},
}


class EventInvalid(ClawError):
    """The other side broke the contract of docs/specs/bus.md."""

    name = "EventInvalid"


class Event:
    """One event; a field that its type does not have raises KeyError, which is a bug of ours."""

    __slots__ = ("_fields", "type")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.type: str = fields["type"]
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    @classmethod
    def parse(cls, line: bytes) -> Event:
        """Parse one line of an event stream. Raises EventInvalid. Types that we do not know pass
        unchecked."""
        fields = _parse_object(line)
        kind = fields.get("type")
        if not isinstance(kind, str):
            raise EventInvalid("the agent sent an event without a type", "see 'journalctl -u clawos-agent'")
        for name, wanted in FIELDS.get(kind, {}).items():
            if not isinstance(fields.get(name), wanted):
                raise EventInvalid(
                    f"the agent sent a {kind} event with a wrong {name}", "see 'journalctl -u clawos-agent'"
                )
        return cls(fields)

    def to_json(self) -> str:
        """One line of ASCII, whatever the strings hold: safe for a terminal too."""
        return json.dumps(self._fields, separators=(",", ":"))


class CommandResult:
    """How a `!command` ended, parsed from the isolator's result line."""

    __slots__ = ("exit_code", "limit", "signal", "wall_s")

    def __init__(self, line: bytes) -> None:
        fields = _parse_object(line)
        for name, wanted in (("exit_code", _ANY_NUMBER), ("signal", _SIGNAL), ("limit", _ANY_TEXT)):
            if not isinstance(fields.get(name), wanted):
                raise EventInvalid(f"a result with a wrong {name}", "see 'journalctl -u clawos-isolator'")
        self.exit_code: int = fields.get("exit_code") or 0
        self.signal = _signal_number(fields.get("signal"))
        self.limit: str | None = fields.get("limit")
        self.wall_s = float(fields.get("wall_s") or 0)


def _signal_number(signal: int | str | None) -> int | None:
    if not isinstance(signal, str):
        return signal
    import signal as names

    try:
        return int(names.Signals["SIG" + signal.removeprefix("SIG")])
    except KeyError:
        raise EventInvalid(
            f"a result with the signal {signal!r}", "see 'journalctl -u clawos-isolator'"
        ) from None


def _parse_object(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise EventInvalid("the agent sent something that is not JSON", "see 'journalctl -u clawos-agent'")
    return fields
