"""From the command line to the exit code."""

from __future__ import annotations

import os
import sys

from clawos.clawsh import exit_codes, options
from clawos.clawsh.agent import Agent
from clawos.clawsh.shell import Shell
from clawos.clawsh.sink import ReaderGone, Sink
from clawos.clawsh.turn import Person
from clawos.core.wire import SYSTEM_BUS

_STDIN, _STDOUT, _STDERR = 0, 1, 2
DEFAULT_SESSION = "default"
"""What a user continues by talking."""


def main(argv: list[str] | None = None) -> int:
    """Run clawsh. Returns its exit code."""
    words = sys.argv if argv is None else argv
    stdout, stderr = Sink(_STDOUT), Sink(_STDERR)
    try:
        return _run(words, stdout, stderr)
    except options.UsageError as error:
        stderr.line(f"clawsh: {error.message}\n        {error.hint}")
        return exit_codes.USAGE
    except ReaderGone:
        return exit_codes.READER_GONE
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def _run(words: list[str], stdout: Sink, stderr: Sink) -> int:
    asked = options.parse(words[1:])
    if asked.help:
        stdout.write(options.help_text())
        return exit_codes.DONE
    if asked.version:
        from clawos import __version__

        stdout.line(f"clawsh {__version__}")
        return exit_codes.DONE
    if asked.text is not None:
        return _one(asked, stdout, stderr)
    if asked.file is not None or not (os.isatty(_STDIN) and stdout.terminal):
        return _lines(asked, stdout, stderr)
    if asked.as_json:
        raise options.UsageError(
            "--json is for programs", "give the request with -c, in a file or through a pipe"
        )
    return _talk(asked, words, stdout, stderr)


def _one(asked: options.Options, stdout: Sink, stderr: Sink) -> int:
    assert asked.text is not None
    # A session of its own has nothing to show: what was said was said in the conversation that goes on.
    if asked.text.split()[:1] == ["/history"] and asked.session is None:
        asked.session = DEFAULT_SESSION
    # A command says nothing to the model: what was said before does not matter, and a fresh session costs a
    # write.
    shell = Shell(
        _agent(asked, fresh=not asked.text.lstrip().startswith("!")),
        stdout,
        stderr,
        stdin=_STDIN,
        person=_person(stderr, as_json=asked.as_json),
        plan=asked.plan,
        as_json=asked.as_json,
    )
    return shell.handle(asked.text)


def _lines(asked: options.Options, stdout: Sink, stderr: Sink) -> int:
    """Each line a request. Goes on after a failure, and exits with the first code that was not 0."""
    try:
        fd = _STDIN if asked.file is None else os.open(asked.file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise options.UsageError(f"{asked.file}: {error.strerror}", "see 'clawsh --help'") from None
    shell = Shell(
        _agent(asked, fresh=True),
        stdout,
        stderr,
        # A command must not eat the requests that are still to come.
        stdin=None if asked.file is None else _STDIN,
        plan=asked.plan,
        as_json=asked.as_json,
    )
    first = exit_codes.DONE
    with os.fdopen(fd, encoding="utf-8", errors="replace", closefd=asked.file is not None) as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            code = shell.handle(line)
            first = first or code
            if shell.leaving or code == exit_codes.INTERRUPTED:
                break
    return first


def _talk(asked: options.Options, words: list[str], stdout: Sink, stderr: Sink) -> int:
    from clawos.clawsh import interactive

    # A login shell is called "-clawsh", but a script's interpreter never sees that name: the leader of a
    # terminal's session is one too.
    login = asked.login or words[0].startswith("-") or os.getsid(0) == os.getpid()
    agent = Agent(_address(), asked.session or DEFAULT_SESSION)
    person = Person(stdout, _STDIN)
    shell = Shell(agent, stdout, stderr, stdin=_STDIN, person=person, plan=asked.plan, interactive=True)
    return interactive.run(shell, login=login)


def _agent(asked: options.Options, *, fresh: bool) -> Agent:
    """In the session that was asked for, as it stands; else in one of this process's own."""
    if asked.session is not None:
        return Agent(_address(), asked.session)
    from clawos.clawsh.home import own_session

    return Agent(_address(), own_session(), fresh=fresh)


def _person(stderr: Sink, *, as_json: bool) -> Person | None:
    """Whoever can be asked for an approval: somebody who sees the question and sits at the keyboard."""
    return Person(stderr, _STDIN) if os.isatty(_STDIN) and stderr.terminal and not as_json else None


def _address() -> str:
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
