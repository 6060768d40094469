"""The loop at a terminal."""

from __future__ import annotations

import os
import pwd
import signal
import socket

from clawos.clawsh import exit_codes, greeting, home, trouble
from clawos.clawsh.editor import make_editor
from clawos.clawsh.history import History
from clawos.clawsh.shell import Shell
from clawos.core.errors import ClawError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clawos.clawsh.sink import Sink

_TOOLS_TIMEOUT_S = 2


def run(shell: Shell, *, login: bool) -> int:
    """Talk until Ctrl-D or /quit. Returns the exit code of the shell."""
    signal.signal(
        signal.SIGQUIT, signal.SIG_IGN
    )  # as in any login shell: Ctrl-\ is for the work, and ours is far away
    _greet(shell, login=login)
    directory = home.make_directory()
    editor = make_editor(
        shell.stdout, History(f"{directory}/history" if directory else None), lambda: _tool_names(shell)
    )
    prompt = _prompt()
    while not shell.leaving:
        try:
            line = editor.read(prompt)
        except KeyboardInterrupt:
            if not shell.stdout.at_line_start:
                shell.stdout.write("\n")
            continue
        except EOFError:
            shell.stdout.line("")
            break
        try:
            shell.handle(line)
        except KeyboardInterrupt:  # pressed just before or after the work that can be cancelled
            shell.stderr.line("")
    return exit_codes.DONE


def _prompt() -> str:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname().partition('.')[0]}> "


def _greet(shell: Shell, *, login: bool) -> None:
    for line in greeting.lines():
        shell.stdout.line(line)
    try:
        if login:
            for line in greeting.failed_units(shell.agent.wire):
                shell.stdout.line(line, "bad")
        missing: ClawError | None = greeting.agent_is_there(shell.agent.wire)
    except ClawError as error:
        missing = error
    if missing is not None:
        shell.agent.forget()
        _, sentence, hint, _ = trouble.explain(missing, interactive=True)
        _tell(shell.stderr, sentence, hint)


def _tell(stderr: Sink, sentence: str, hint: str) -> None:
    stderr.line(stderr.style("clawsh: ", "bad") + sentence)
    for line in hint.splitlines():
        stderr.line(f"        {line}")


_names: list[str] = []


def _tool_names(shell: Shell) -> list[str]:
    """Names of the tools, asked for once; Tab offers none while the agent is away."""
    if not _names:
        try:
            _names.extend(str(tool["name"]) for tool in shell.agent.tools(timeout_s=_TOOLS_TIMEOUT_S))
        except ClawError:
            return []
    return _names
