"""The command line: one table, from which --help, the man page's test and the completion's test are fed.

Not argparse: it costs a fifth of the time that `clawsh -c '!true'` may take, and a login shell must take
`-l`.
"""

from __future__ import annotations

from clawos.core.errors import ClawError

OPTIONS = (
    ("-c TEXT", "one request, or with !COMMAND one command in the sandbox"),
    (
        "--session NAME",
        "continue the session NAME; without it -c and scripts begin\n"
        "                   an empty one, and talking continues default",
    ),
    ("--plan", "print the calls that would be made, and run nothing"),
    (
        "--json",
        "one event a line: tool_call, tool_result, text,\n                   approval_required, error",
    ),
    ("-l, --login", "behave as a login shell"),
    ("-h, --help", "show this and exit"),
    ("--version", "show the version and exit"),
)

HELP = """\
usage: clawsh [--session NAME] [--plan] [--json] [-c TEXT | FILE]

The shell of ClawOS. Say in plain words what you need; the agent turns it into
tool calls, each of which runs in a sandbox of its own. Nothing that changes the
system runs unless you say yes, and no option lifts that.

options:
{options}

With FILE, or with something piped in, each line is one request: the answers go
to stdout, what is going on to stderr.

examples:
  clawsh                                       talk
  clawsh -c 'how much memory is free?'         one request
  clawsh -c '!df -h'                           one command in the sandbox, with its exit code
  clawsh --plan -c 'restart nginx'             what would be done?
  clawsh --json -c 'which services failed?'    for programs
  clawsh -c /history                           what was said in the session default
  dmesg | clawsh -c '!grep -c error'           stdin goes to the command

exit codes:
{codes}
  With -c '!command' the exit code is the command's own, or 128 and its signal.

Type /help inside the shell for what it understands there. The manual is clawsh(1).
"""


class UsageError(ClawError):
    """The command line makes no sense."""

    name = "UsageError"


class Options:
    """What was asked for on the command line."""

    __slots__ = ("as_json", "file", "help", "login", "plan", "session", "text", "version")

    def __init__(self) -> None:
        self.text: str | None = None
        self.file: str | None = None
        self.session: str | None = None
        self.plan = self.as_json = self.login = self.help = self.version = False


def parse(argv: list[str]) -> Options:
    """Parse what follows the program's name. Raises UsageError."""
    options = Options()
    rest = list(argv)
    operands: list[str] = []
    wants_text = False
    while rest:
        word = rest.pop(0)
        if word == "--":
            operands += rest
            break
        if word.startswith("--"):
            name, given, value = word.partition("=")
            if name == "--session":
                if not given and (not rest or rest[0].startswith("-")):
                    raise UsageError("--session needs a name", "try: clawsh --session default -c /history")
                options.session = _session_name(value if given else rest.pop(0))
            else:
                _long(options, word)
        elif word.startswith("-") and word != "-":
            for letter in word[1:]:  # together, as sh takes them: -lc TEXT
                if letter == "c":
                    wants_text = True
                else:
                    _short(options, letter)
            if wants_text and options.text is None and rest:
                options.text = rest.pop(0)  # whatever it begins with: `su -c` hands over any text
        else:
            operands.append(word)
    if options.help or options.version:
        return options
    if wants_text and options.text is None:
        raise UsageError("-c needs a text", "try: clawsh -c 'how much memory is free?'")
    if operands and options.text is None:
        options.file = operands.pop(0)
    if operands:
        raise UsageError(
            f"what is {operands[0]!r}?", "a request of several words needs quotes: clawsh -c '...'"
        )
    return options


def _session_name(name: str) -> str:
    """As the agent takes them; said here, it is the command line that is wrong and not the request."""
    plain = name.isascii() and all(letter.isalnum() or letter in "._-" for letter in name)
    if not plain or not 1 <= len(name) <= 64:
        raise UsageError(
            f"{name[:64]!r} cannot be a session's name",
            "1 to 64 letters, digits, dots, dashes or underscores",
        )
    return name


def _long(options: Options, word: str) -> None:
    if word == "--plan":
        options.plan = True
    elif word == "--json":
        options.as_json = True
    elif word == "--login":
        options.login = True
    elif word == "--help":
        options.help = True
    elif word == "--version":
        options.version = True
    else:
        raise UsageError(f"no option {word}", "see 'clawsh --help'")


def _short(options: Options, letter: str) -> None:
    if letter == "l":
        options.login = True
    elif letter == "h":
        options.help = True
    else:
        raise UsageError(f"no option -{letter}", "see 'clawsh --help'")


def help_text() -> str:
    from clawos.clawsh.exit_codes import MEANING

    options = "\n".join(f"  {name:<16} {meaning}" for name, meaning in OPTIONS)
    codes = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANING.items())
    return HELP.format(options=options, codes=codes)
