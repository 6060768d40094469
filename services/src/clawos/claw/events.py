"""`claw events`, `alerts`, `rules`, `metrics`: what the monitor saw, and what it made of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clawos.claw import output, services
from clawos.claw.services import Machine

_LINE_ARGS_MAX = 100
_SEVERITY_COLOURS = {"critical": "fail", "high": "fail", "medium": "warn"}


def wanted(
    *, call: str, session: str, kinds: Sequence[str], limit: int | None = None, alerts: bool = False
) -> dict[str, Any]:
    """The filter for these options."""
    asked: dict[str, Any] = {"kinds": kinds} if kinds else {}
    given = {"call": call, "session": session, "limit": limit}
    asked |= {name: value for name, value in given.items() if value}
    return asked | ({"alerts": True} if alerts else {})


def recent(machine: Machine, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.ask(services.MONITOR, "Recent", json.dumps(filters))
    return found


def follow(machine: Machine, filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Events as they happen, until the monitor ends."""
    stream = machine.stream(services.MONITOR, "Subscribe", json.dumps(filters))
    with os.fdopen(stream, "rb") as lines:
        for line in lines:
            yield json.loads(line)


def alerts(machine: Machine, *, severity: str, call: str, limit: int) -> list[dict[str, Any]]:
    asked = {"severity": severity, "call": call, "limit": limit}
    found: list[dict[str, Any]] = machine.ask(services.MONITOR, "Alerts", json.dumps(asked))
    return found


def rules(machine: Machine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.ask(services.MONITOR, "Rules")
    return found


def reload(machine: Machine) -> dict[str, Any]:
    """Have the rules read anew. Raises RemoteError RulesInvalid; then the old ones are in force."""
    return dict(machine.ask(services.MONITOR, "Reload"))


def metrics(machine: Machine) -> str:
    return machine.text(services.MONITOR, "Metrics")


def show_event(event: Mapping[str, Any]) -> None:
    """One line. Flushed: somebody waits for it."""
    where = event.get("call") or "-"
    who = Path(event.get("exe") or "").name or event.get("comm") or "?"
    kind = str(event["kind"])
    if kind == "alert":
        kind = output.colour("alert".ljust(9), _SEVERITY_COLOURS.get(str(event.get("severity")), "strong"))
        text = f"{event['severity']}: {event['message']}"
    else:
        kind, text = kind.ljust(9), _what(event)
    time = str(event.get("time", ""))[11:23]
    line = (
        f"{time:<12}  {output.harmless(where):<18}  {event.get('tgid', ''):>7}  {output.harmless(who):<15.15}"
    )
    print(f"{line}  {kind}  {output.harmless(text)}".rstrip(), flush=True)


def show_head() -> None:
    head = f"{'TIME':<12}  {'CALL':<18}  {'PROCESS':>7}  {'PROGRAM':<15}  {'EVENT':<9}  WHAT"
    print(output.colour(head, "strong"), flush=True)


def _what(event: Mapping[str, Any]) -> str:
    """What stands behind the kind."""
    match event["kind"]:
        case "exec":
            return _short(" ".join(event.get("args") or [event["path"]]))
        case "open":
            return f"{'write' if event.get('write') else 'read'} {event['path']}"
        case "rename" | "link":
            return f"{event['path']} -> {event['to']}"
        case "connect" | "bind" | "accept" | "listen":
            return event.get("path") or f"{event.get('address') or '*'} port {event.get('port')}"
        case "fork":
            return f"process {event['child_pid']}"
        case "exit":
            return f"signal {event['signal']}" if event.get("signal") else f"code {event.get('code')}"
        case "setid":
            return f"user {event['old_uid']} -> {event['new_uid']}"
        case "anomaly":
            return f"score {event['score']}: {'; '.join(event['reasons'])}"
        case "lost":
            return f"{event['count']} of {event['of']}"
        case "denied":
            return f"{event['hook']} {event.get('path') or event.get('address') or ''}"
    own = (event[name] for name in ("path", "name", "target", "how", "family", "command") if name in event)
    return str(next(own, ""))


def _short(text: str) -> str:
    return text if len(text) <= _LINE_ARGS_MAX else text[:_LINE_ARGS_MAX] + "…"


def show_alerts(found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        print("no alerts")
        return
    for alert in found:
        severity = str(alert["severity"])
        label = output.colour(severity.ljust(8), _SEVERITY_COLOURS.get(severity, "dim"))
        print(f"{alert['time'][:19]}Z  {label}  {output.harmless(alert['message'])}")
        done = [f"{r['kind']} {'done' if r['done'] else 'failed: ' + r['error']}" for r in alert["reactions"]]
        about = [
            alert["rule"],
            *alert["attack"],
            *([f"call {alert['call']}"] if alert["call"] else []),
            *done,
        ]
        if alert["repeats"]:
            about.append(f"{alert['repeats']} times more")
        print(f"{'':<32}{output.harmless(', '.join(about))}")


def show_rules(found: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        [rule["id"], rule["severity"], " ".join(rule["attack"]), " ".join(rule["react"]), str(rule["hits"])]
        for rule in found
    ]
    output.print_table(["RULE", "SEVERITY", "ATT&CK", "REACTIONS", "HITS"], rows)


def show_metrics(text: str) -> None:
    sys.stdout.write(text)
