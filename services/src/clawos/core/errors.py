"""Errors that a caller can act on.

A room declares a subclass for each thing a caller can act on. It crosses the bus under its own name with a
sentence (what happened), a hint (what to do next) and its values; `clawos.core.bus` is the only place that
translates. Anything that is not a `ClawError` is a bug: it crosses as `Internal` with an incident id.
"""

from __future__ import annotations

from typing import ClassVar

PREFIX = "org.clawos.Error."


class ClawError(Exception):
    """What happened (`message`), what to do next (`hint`) and the values involved (`fields`)."""

    name: ClassVar[str] = "Failed"

    def __init__(self, message: str, hint: str = "", **fields: str | int | float | None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    @property
    def bus_name(self) -> str:
        return PREFIX + type(self).name


class BadRequest(ClawError):
    """The caller sent something that does not parse; the message names the path of what is wrong."""

    name = "BadRequest"


class ConfigInvalid(ClawError):
    """A file under /etc/clawos or policies/ does not parse."""

    name = "ConfigInvalid"


class AccessDenied(ClawError):
    """The caller may not do this."""

    name = "AccessDenied"


class Busy(ClawError):
    """A limit on work under way is reached; trying later may help."""

    name = "Busy"


class Unavailable(ClawError):
    """A service that this call needs does not answer."""

    name = "Unavailable"


class Internal(ClawError):
    """A bug. The details are in the journal under the incident id."""

    name = "Internal"


class RemoteError(ClawError):
    """An error that another service answered with; keeps that service's name for it."""

    def __init__(
        self, error_name: str, message: str, hint: str = "", **fields: str | int | float | None
    ) -> None:
        super().__init__(message, hint, **fields)
        self.error_name = error_name

    @property
    def bus_name(self) -> str:
        return self.error_name

    def is_a(self, kind: type[ClawError]) -> bool:
        return self.error_name == PREFIX + kind.name


# What the bus daemon and systemd answer in the name of a service that is not there or does not start.
_ABSENT = ("ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected", "TimedOut", "Timeout")


def not_answering(destination: str) -> Unavailable:
    """A service is down: says which unit to look at."""
    ours = destination.startswith("org.clawos.")
    unit = "clawos-" + destination.rpartition(".")[2].rstrip("1").lower() if ours else "dbus"
    return Unavailable(f"{destination} does not answer", f"see 'systemctl status {unit}'", unit=unit)


def from_reply(destination: str, error_name: str, body: list[object]) -> ClawError:
    """The error that a D-Bus error reply stands for: ours with hint and fields, or that nobody answered."""
    text = str(body[0]) if body else error_name
    if error_name.startswith(PREFIX) and len(body) == 3:
        import json  # only on this path: a shell that runs one command has no time for it

        return RemoteError(error_name, text, str(body[1]), **json.loads(str(body[2])))
    family, _, last = error_name.rpartition(".")
    not_started = family.endswith(".Spawn") or family == "org.freedesktop.systemd1"
    if last in _ABSENT or (not_started and destination.startswith("org.clawos.")):
        return not_answering(destination)
    return RemoteError(error_name, text)
