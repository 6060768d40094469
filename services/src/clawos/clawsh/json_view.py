"""A turn for a program: one event a line on stdout, as the agent sent it."""

from __future__ import annotations

from clawos.clawsh.events import Event
from clawos.clawsh.view import SHOWN_AS_JSON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clawos.clawsh.sink import Sink


class JsonView:
    """Forwards the five types of events that scripts are promised; how the turn ended is the exit code."""

    def __init__(self, stdout: Sink) -> None:
        self._stdout = stdout

    def waiting(self, what: str) -> None:
        """A program needs no sign of life."""

    def cancelling(self) -> None:
        """The exit code says it."""

    def show(self, event: Event) -> None:
        if event.type in SHOWN_AS_JSON:
            self._stdout.write(event.to_json() + "\n")

    def fail(self, name: str, message: str, hint: str) -> None:
        self.show(Event({"type": "error", "name": name, "message": message, "hint": hint}))

    def note(self, text: str) -> None:
        """For a person only."""

    def end(self, status: str) -> None:
        """Nothing: see the exit code."""
