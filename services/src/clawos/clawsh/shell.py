"""One line of input: a request, a !command, or a /command."""

from __future__ import annotations

from clawos.clawsh import exit_codes, slash, trouble, turn
from clawos.clawsh.events import Event
from clawos.clawsh.json_view import JsonView
from clawos.clawsh.view import TextView
from clawos.core.errors import ClawError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clawos.clawsh.agent import Agent
    from clawos.clawsh.sink import Sink
    from clawos.clawsh.turn import Person
    from clawos.clawsh.view import View

# A page of a serial console; /output shows the rest.
MAX_LINES = 40
WORDS = {
    "help": "/help",
    "?": "/help",
    "exit": "/quit",
    "quit": "/quit",
    "logout": "/quit",
    "clear": "/clear",
}
"""What fingers type without a slash, and that must never cost a turn of the model."""


class Shell:
    """Carries out lines, one after another, in one session."""

    def __init__(
        self,
        agent: Agent,
        stdout: Sink,
        stderr: Sink,
        *,
        stdin: int | None,
        person: Person | None = None,
        plan: bool = False,
        as_json: bool = False,
        interactive: bool = False,
    ) -> None:
        self.agent, self.stdout, self.stderr = agent, stdout, stderr
        self.stdin, self.person = stdin, person
        self.plan, self.as_json, self.interactive = plan, as_json, interactive
        self.leaving = False
        self.outputs: list[str] = []

    def handle(self, line: str) -> int:
        """Carry out one line. Returns an exit code; raises ReaderGone."""
        line = line.strip()
        line = WORDS.get(line, line)
        try:
            if not line:
                return exit_codes.DONE
            if line.startswith("!"):
                return self._command(line[1:].strip())
            if line.startswith("/") and (known := slash.find(line)) is not None:
                return known(self, line.partition(" ")[2].strip())
            return self.ask(line, plan=self.plan)
        except ClawError as error:
            if isinstance(error, Unavailable):
                self.agent.forget()
            name, sentence, hint, code = trouble.explain(error, interactive=self.interactive)
            self._view().fail(name, sentence, hint)
            return code

    def ask(self, text: str, *, plan: bool) -> int:
        view = self._view(plan=plan)
        code = turn.run(self.agent, view, text, plan=plan, person=self.person)
        if isinstance(view, TextView) and view.outputs:
            self.outputs = view.outputs
        return code

    def say(self, text: str) -> None:
        """Words of our own in answer to a /command."""
        if self.as_json:
            self._view().show(Event({"type": "text", "text": text}))
        else:
            self.stdout.line(text)

    def _command(self, command: str) -> int:
        from clawos.clawsh import command as sandbox

        if not command:
            self._view().fail("org.clawos.Error.BadRequest", "! needs a command", "try: !ls")
            return exit_codes.USAGE
        if self.plan:
            self.say(f"would run in the sandbox: {command}")
            return exit_codes.DONE
        code = sandbox.run(self.agent, command, self.stdin, self.stdout, self.stderr, as_json=self.as_json)
        if self.interactive and code:
            self.stderr.line(self.stderr.style(f"exit code {code}", "dim"))
        return code

    def _view(self, *, plan: bool = False) -> View:
        if self.as_json:
            return JsonView(self.stdout)
        lines = MAX_LINES if self.interactive else None
        return TextView(self.stdout, self.stderr, plan=plan, interactive=self.interactive, max_lines=lines)
