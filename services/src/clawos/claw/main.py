"""From the command line to the exit code: 0 done, 1 something is wrong, 2 wrong usage."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clawos import __version__
from clawos.claw import output
from clawos.core.errors import PREFIX, ClawError, Unavailable

if TYPE_CHECKING:
    from clawos.claw.services import Machine

_EPILOG = """\
examples:
  claw status                        what runs, which model, how much memory
  claw doctor                        is this machine as it should be? (as root, for all checks)
  claw tools unit.restart            what a tool does and what it needs
  claw sandbox plan file.read path=/etc/hosts      mounts, limits and filters of a call
  claw sandbox learn file.read path=/etc/hosts     the system calls that it makes
  claw sandbox run unit.list --then shell.run 'command=grep ssh'     one call's output into the next
  claw model add ~/qwen.gguf qwen    copy a model in, and try it out
  claw model use qwen                have the agent use it from now on
  claw events --follow               what happens, as the kernel tells it (as root)
  claw alerts                        what the monitor's rules found
  claw session thaw ID               let a session go on that the monitor froze

Services are looked after with systemctl and journalctl; claw shows what they do not.
Exit codes: 0 done, 1 something is wrong, 2 wrong usage. The manual is claw(8).
"""


_RUN_EPILOG = """\
examples:
  claw sandbox run disk.usage                        its output, and its exit code as ours
  claw sandbox run disk.usage --json                 output, exit code, limit, time and memory as JSON
  claw sandbox run journal.show --then shell.run 'command=grep -c error'
                                                     a chain: each reads what the one before it writes
  claw sandbox run disk.usage --and memory.usage     at the same time; each line with its call before it
  claw sandbox run shell.run command=wc --stdin <x   with our standard input

A chain starts whole or not at all. When a limit or a signal ends one of its calls, all end.
Calls end when claw does; for the background there is systemd-run(1).

Exit codes: that of the first call that failed, 128 and its signal, 124 for the wall clock, 137 for another
limit, or 125 when it could not be run; 2 wrong usage.
"""


class _Exact(argparse.ArgumentParser):
    """Takes no abbreviations: what a script relies on today must not become ambiguous tomorrow."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)


def parser() -> argparse.ArgumentParser:
    """The whole command line; the man page and the completion are compared with it."""
    raw = argparse.RawDescriptionHelpFormatter
    json_too = _Exact(add_help=False)
    json_too.add_argument("--json", action="store_true", help="print JSON instead of text")
    top = argparse.ArgumentParser(
        prog="claw", description="Look after ClawOS.", epilog=_EPILOG, formatter_class=raw, allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"claw {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Exact)
    commands.add_parser("status", parents=[json_too], help="show services, model, tools and memory")
    commands.add_parser("doctor", parents=[json_too], help="check this machine; exit 1 if anything is wrong")
    tools = commands.add_parser("tools", parents=[json_too], help="list the agent's tools, or describe one")
    tools.add_argument("name", nargs="?", metavar="NAME", help="name of a tool")
    sandbox = commands.add_parser("sandbox", help="show what a tool's sandbox is, and what a tool does in it")
    acts = sandbox.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Exact)
    run = acts.add_parser(
        "run",
        parents=[json_too],
        help="run calls (as root): one, a chain, or several at the same time",
        description="Run calls of tools in their sandboxes (as root).",
        epilog=_RUN_EPILOG,
        formatter_class=raw,
    )
    run.add_argument("tool", metavar="TOOL", help="name of a tool")
    run.add_argument("values", nargs="*", metavar="ARG=VALUE", help="what the tool is given")
    more = run.add_mutually_exclusive_group()
    for option, text in (
        ("--then", "hand the output on to another call; may be repeated"),
        ("--and", "run another call at the same time; may be repeated"),
    ):
        more.add_argument(
            option, nargs="+", action="append", default=[], metavar=("TOOL", "ARG=VALUE"), help=text
        )
    run.add_argument("--stdin", action="store_true", help="give our standard input to the first call")
    _add_yes(run)
    for action, text in (
        ("plan", "print mounts, limits and filters of a call (as root); nothing runs"),
        ("learn", "run a call (as root), and report the system calls that it makes"),
    ):
        one = acts.add_parser(action, parents=[json_too], help=text, description=text)
        one.add_argument("tool", metavar="TOOL", help="name of a tool")
        one.add_argument("values", nargs="*", metavar="ARG=VALUE", help="what the tool is given")
        if action == "learn":
            _add_yes(one)
    _add_monitor(commands, json_too)
    model = commands.add_parser("model", help="list, add, use and remove models (as root)")
    actions = model.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Exact)
    actions.add_parser("list", parents=[json_too], help="list the models")
    add = actions.add_parser("add", parents=[json_too], help="copy a GGUF file in, after trying it out")
    add.add_argument("path", type=Path, metavar="PATH", help="the GGUF file")
    add.add_argument("name", nargs="?", metavar="NAME", help="what to call it (the file's name)")
    for action, text in (
        ("use", "make a model the default; it is loaded first"),
        ("remove", "delete an added model"),
    ):
        one = actions.add_parser(action, parents=[json_too], help=text)
        one.add_argument("name", metavar="NAME", help="name of a model")
    return top


def _add_monitor(commands: argparse._SubParsersAction[_Exact], json_too: _Exact) -> None:
    events = commands.add_parser("events", parents=[json_too], help="show what happened (as root)")
    events.add_argument(
        "--follow", action="store_true", help="go on with what happens; --json: one line each"
    )
    events.add_argument("--call", default="", metavar="ID", help="only of this call")
    events.add_argument("--session", default="", metavar="ID", help="only of this session's calls")
    events.add_argument(
        "--kind", action="append", default=[], metavar="KIND", help="only of this kind; may be repeated"
    )
    events.add_argument("--limit", type=int, default=200, metavar="N", help="the last N (200)")
    alerts = commands.add_parser("alerts", parents=[json_too], help="show what the rules found (as root)")
    alerts.add_argument(
        "--severity",
        default="low",
        choices=["info", "low", "medium", "high", "critical"],
        help="at least this one (low)",
    )
    alerts.add_argument("--call", default="", metavar="ID", help="only of this call")
    alerts.add_argument("--limit", type=int, default=100, metavar="N", help="the last N (100)")
    rules = commands.add_parser("rules", parents=[json_too], help="list the rules of the monitor (as root)")
    rules.add_argument("--reload", action="store_true", help="have the files of rules read anew")
    commands.add_parser("top", parents=[json_too], help="show what services and sandboxes use (as root)")
    commands.add_parser("metrics", help="print the metrics for Prometheus (as root)")
    session = commands.add_parser("session", help="list frozen sessions, and let them go on (as root)")
    actions = session.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Exact)
    actions.add_parser("list", parents=[json_too], help="list the sessions that are frozen")
    thaw = actions.add_parser("thaw", parents=[json_too], help="let a session make calls again")
    thaw.add_argument("session", metavar="ID", help="the session")


def _add_yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="run even what is dangerous, such as power.off")


def main(argv: list[str] | None = None) -> int:
    """Run claw. Returns its exit code."""
    arguments = parser().parse_args(argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except ClawError as error:
        _fail(error, as_json=getattr(arguments, "json", False))
        return _code_of_failure(arguments)
    except BrokenPipeError:
        # What is still buffered has no reader either; without this the interpreter would complain on its way
        # out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _run(arguments: argparse.Namespace) -> int:
    from clawos.claw.services import Machine

    if arguments.command == "doctor":
        from clawos.claw import doctor

        findings = doctor.collect(show_them=not arguments.json)
        if arguments.json:
            output.print_json([finding.as_json() for finding in findings])
        return doctor.exit_code(findings)
    machine = Machine.connect()
    if arguments.command == "status":
        from clawos.claw import status

        found = status.collect(machine)
        output.print_json(found) if arguments.json else status.show(found)
    elif arguments.command == "tools":
        from clawos.claw import tools

        listed = tools.collect(machine, arguments.name)
        if arguments.json:
            output.print_json(listed if arguments.name is None else listed[0])
        elif arguments.name is None:
            tools.show_all(listed)
        else:
            tools.show_one(listed[0])
    elif arguments.command == "sandbox":
        return _sandbox(machine, arguments)
    elif arguments.command == "session":
        _session(machine, arguments)
    elif arguments.command in ("events", "alerts", "rules", "top", "metrics"):
        _monitor(machine, arguments)
    else:
        _model(machine, arguments)
    return 0


def _model(machine: Machine, arguments: argparse.Namespace) -> None:
    from clawos.claw import model

    if arguments.action == "list":
        models = model.collect(machine)
        output.print_json(models) if arguments.json else model.show(models)
        return
    if arguments.action == "add":
        name = model.add(machine, arguments.path, arguments.name)
        said = f"{name} is here; 'claw model use {name}' has the agent use it"
    elif arguments.action == "use":
        model.use(machine, name := arguments.name)
        said = f"the agent uses {name} from now on"
    else:
        model.remove(machine, name := arguments.name)
        said = f"{name} is gone"
    if arguments.json:
        output.print_json({"action": arguments.action, "name": name})
    else:
        print(output.harmless(said))


def _monitor(machine: Machine, arguments: argparse.Namespace) -> None:
    from clawos.claw import events, top

    if arguments.command == "events":
        _events(machine, arguments)
    elif arguments.command == "alerts":
        alerts = events.alerts(
            machine, severity=arguments.severity, call=arguments.call, limit=arguments.limit
        )
        output.print_json(alerts) if arguments.json else events.show_alerts(alerts)
    elif arguments.command == "rules" and arguments.reload:
        done = events.reload(machine)
        output.print_json(done) if arguments.json else print(f"{done['rules']} rules are in force")
    elif arguments.command == "rules":
        rules = events.rules(machine)
        output.print_json(rules) if arguments.json else events.show_rules(rules)
    elif arguments.command == "metrics":
        events.show_metrics(events.metrics(machine))
    elif arguments.json:
        output.print_json(top.once(machine))
    else:
        top.run(machine)


def _events(machine: Machine, arguments: argparse.Namespace) -> None:
    from clawos.claw import events

    about = {"call": arguments.call, "session": arguments.session, "kinds": arguments.kind}
    if not arguments.follow:
        found = events.recent(machine, events.wanted(**about, limit=arguments.limit))
        if arguments.json:
            output.print_json(found)
            return
        events.show_head()
        for event in found:
            events.show_event(event)
        return
    if not arguments.json:
        events.show_head()
    for event in events.follow(machine, events.wanted(**about, alerts=True)):
        print(json.dumps(event), flush=True) if arguments.json else events.show_event(event)


def _session(machine: Machine, arguments: argparse.Namespace) -> None:
    from clawos.claw import session

    if arguments.action == "list":
        found = session.collect(machine)
        output.print_json(found) if arguments.json else session.show(found)
        return
    session.thaw(machine, arguments.session)
    if arguments.json:
        output.print_json({"action": "thaw", "session": arguments.session})
    else:
        print(output.harmless(f"session {arguments.session} may make calls again"))


def _sandbox(machine: Machine, arguments: argparse.Namespace) -> int:
    from clawos.claw import calls, sandbox

    if arguments.action == "run":
        others = arguments.then or vars(arguments)["and"]
        wanted = [(arguments.tool, arguments.values), *((tool, values) for tool, *values in others)]
        how = "parallel" if vars(arguments)["and"] else "chain"
        ended = calls.run(machine, how, wanted, stdin=arguments.stdin, yes=arguments.yes, keep=arguments.json)
        output.print_json(ended.as_json()) if arguments.json else calls.show(ended)
        return ended.exit_code
    if arguments.action == "plan":
        planned = sandbox.plan(machine, arguments.tool, arguments.values)
        output.print_json(planned) if arguments.json else sandbox.show_plan(planned)
    else:
        learned = sandbox.learn(machine, arguments.tool, arguments.values, yes=arguments.yes)
        output.print_json(learned) if arguments.json else sandbox.show_learned(learned)
    return 0


def _code_of_failure(arguments: argparse.Namespace) -> int:
    from clawos.claw.calls import NOT_RUN

    runs = arguments.command == "sandbox" and arguments.action == "run"
    return NOT_RUN if runs else 1


def _fail(error: ClawError, *, as_json: bool) -> None:
    name, message, hint = error.bus_name.removeprefix(PREFIX), error.message, error.hint
    if name.endswith(".AccessDenied"):
        name, message, hint = "AccessDenied", "you may not ask for this", "run it as root"
    elif isinstance(error, Unavailable) and "unit" in error.fields:
        unit = error.fields["unit"]
        hint = f"see 'systemctl status {unit}' and 'journalctl -u {unit} -n 20'"
    if as_json:
        print(json.dumps({"error": {"name": name, "message": message, "hint": hint}}))
    print(f"claw: {output.harmless(message)}", file=sys.stderr)
    if hint:
        print(f"      {output.harmless(hint)}", file=sys.stderr)
