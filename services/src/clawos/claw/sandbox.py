"""`claw sandbox plan` and `learn`: what a call is given, and what it really calls. Only root may ask."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import clawos
from clawos.claw import output, services, tools
from clawos.claw.services import Machine
from clawos.core import run
from clawos.core.errors import BadRequest, ClawError
from clawos.core.names import Room
from clawos.core.stream import open_reader

_ISOLATOR = Room("isolator")
_CGROUPS = Path("/sys/fs/cgroup")
_SAID_BYTES = 2000
_READY_S = 120  # starting takes its time on an emulated machine


class Dangerous(ClawError):
    """The tool would run for real, and this one does harm."""

    name = "Dangerous"


class Unlearned(ClawError):
    """The call ran, but what it did was not seen."""

    name = "Unlearned"


def plan(machine: Machine, tool: str, values: Sequence[str]) -> dict[str, Any]:
    """Everything that a call would be given; nothing runs. Raises ClawError."""
    specification = _asked(machine, tools.collect(machine, tool)[0], values)
    planned: dict[str, Any] = machine.ask(services.ISOLATOR, "Plan", specification)
    return planned


def show_plan(planned: dict[str, Any]) -> None:
    filters = planned["filters"]
    print(f"{output.harmless(planned['tool'])}: {output.harmless(shlex.join(planned['argv']))}")
    print(f"as {planned['run_as']}{_with_groups(planned['groups'])}, in {output.harmless(planned['cwd'])}")
    print(f"own namespaces: {' '.join(planned['namespaces'])}")
    print(f"network: {output.harmless(planned['network'])}\n")
    output.print_table(
        ["MOUNT", "FROM", "ACCESS"],
        [[m["path"], m["source"], _access(m)] for m in planned["mounts"]],
    )
    print()
    output.print_table(["LIMIT", "VALUE"], [_limit(*item) for item in planned["limits"].items()])
    print()
    output.print_table(
        ["LANDLOCK", "ALLOWS"], [[path, access] for path, access in sorted(filters["landlock"])]
    )
    print(f"\nseccomp profile {filters['seccomp']}, {filters['seccomp_instructions']} instructions; ", end="")
    print(f"Landlock ABI {filters['landlock_min_abi']} or later")


def learn(machine: Machine, tool: str, values: Sequence[str], *, yes: bool) -> dict[str, Any]:
    """Run a call, and say what it called. Raises ClawError."""
    # From its first instruction on: a copy of the zygote makes fewer calls than its profile must allow.
    specification = json.dumps({**runnable(machine, tool, values, yes=yes), "zygote": False})
    planned = machine.ask(services.ISOLATOR, "Plan", specification)
    cgroup = _CGROUPS / machine.control_group(_ISOLATOR.unit).lstrip("/")
    return asyncio.run(_learn(machine, specification, cgroup, str(planned["filters"]["seccomp"])))


def runnable(machine: Machine, tool: str, values: Sequence[str], *, yes: bool) -> dict[str, Any]:
    """What the isolator is asked for, of a tool that may run for real. Raises ClawError."""
    found = tools.collect(machine, tool)[0]
    if found["class"] == "dangerous" and not yes:
        raise Dangerous(f"{tool} is dangerous, and this runs it for real", "add --yes if you mean it")
    asked: dict[str, Any] = json.loads(_asked(machine, found, values))
    return asked


async def _learn(machine: Machine, specification: str, cgroup: Path, profile: str) -> dict[str, Any]:
    observer = await run.spawn(
        [sys.executable, "-s", "-P", "-m", "clawos.isolator.learn", cgroup, profile],
        stdin=asyncio.subprocess.PIPE,
        stderr=sys.stderr.fileno(),
        # The same clawos that runs here, be it installed or a checkout.
        env={"PYTHONPATH": str(Path(clawos.__path__[0]).parent), "LANG": "C.UTF-8"},
    )
    assert observer.stdin is not None
    assert observer.stdout is not None
    try:
        async with asyncio.timeout(_READY_S):
            _check(await observer.stdout.readline())
        result, said = await _run(machine, specification)
        observer.stdin.write(b"%d\n" % result["cgroup_id"])
        async with asyncio.timeout(_READY_S):
            report = json.loads(_check(await observer.stdout.read()))
    except TimeoutError:
        raise Unlearned("the observer does not answer", "is the machine very busy?") from None
    finally:
        if observer.returncode is None:
            observer.kill()
        await observer.wait()
    return {**report, "result": result, "stderr": said}


def _check(line: bytes) -> bytes:
    """What the observer says, unless it is an error."""
    if not line:
        raise Unlearned("the observer ended without a word", "see what it printed above")
    if line.startswith(b'{"error"'):
        error = json.loads(line)["error"]
        raise Unlearned(error["message"], error["hint"])
    return line


async def _run(machine: Machine, specification: str) -> tuple[dict[str, Any], str]:
    """A call's result and the end of what it said on standard error. What it prints is not wanted here."""
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        streams = machine.run(specification, nothing)
    finally:
        os.close(nothing)
    out, err, ended = [await open_reader(stream) for stream in streams]
    try:
        _, said, last = await asyncio.gather(_drain(out[0]), _drain(err[0]), ended[0].read())
    finally:
        for _, transport in (out, err, ended):
            transport.close()
    if not last:
        raise Unlearned("the isolator lost the call", "see 'journalctl -u clawos-isolator -n 20'")
    return json.loads(last), said.decode(errors="replace")


async def _drain(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while data := await stream.read(65536):
        kept = (kept + data)[-_SAID_BYTES:]
    return kept


def show_learned(learned: dict[str, Any]) -> None:
    result = learned["result"]
    ended = result["limit"] or (
        f"signal {result['signal']}" if result["signal"] else f"exit code {result['exit_code']}"
    )
    allowed, refused, unused = (learned[part] for part in ("allowed", "refused", "unused"))
    rows = [[*_call(call), "allowed"] for call in allowed] + [
        [*_call(call), f"refused: {call['answer']}"] for call in refused
    ]
    output.print_table(["SYSCALL", "CALLS", f"PROFILE {learned['seccomp'].upper()}"], sorted(rows))
    used = len({call["syscall"] for call in allowed})
    print(f"\n{used} system calls used, {len(refused)} refused; ended with {output.harmless(str(ended))}")
    if learned["lost"]:
        print(f"{learned['lost']} beginnings and ends of calls came too fast and are missing")
    print(f"allowed and not used ({len(unused)}): {' '.join(unused)}")
    if result["exit_code"] != 0 and learned["stderr"]:
        print("\nit said:")
        for line in learned["stderr"].splitlines():
            print(f"  {output.harmless(line)}")


def _call(call: dict[str, Any]) -> list[str]:
    told = ", ".join(f"{name}={value:#x}" for name, value in call["arguments"].items())
    return [f"{call['syscall']}({told})" if told else call["syscall"], str(call["calls"])]


def _asked(machine: Machine, tool: dict[str, Any], values: Sequence[str]) -> str:
    properties = tool["parameters"].get("properties", {})
    arguments = dict(_argument(properties, value) for value in values)
    request = json.dumps({"tool": tool["name"], "args": arguments})
    return json.dumps(machine.ask(services.AGENT, "Spec", request))


def _argument(properties: dict[str, Any], text: str) -> tuple[str, Any]:
    """`count=3` → ("count", 3), by the type in the tool's schema; whether it fits is for the agent to say."""
    name, sign, value = text.partition("=")
    if not sign:
        raise BadRequest(f"{text!r} is not of the form ARG=VALUE", "such as path=/etc/hosts")
    try:
        match properties.get(name, {}).get("type"):
            case "integer":
                return name, int(value)
            case "number":
                return name, float(value)
            case "boolean":
                return name, {"true": True, "false": False}[value]
    except (ValueError, KeyError):
        pass
    return name, value


def _with_groups(groups: Sequence[str]) -> str:
    return f" with {', '.join(groups)}" if groups else ""


def _access(mount: dict[str, Any]) -> str:
    return (
        f"{mount['access']}, {output.size(mount['size_bytes'])}" if "size_bytes" in mount else mount["access"]
    )


def _limit(name: str, value: Any) -> list[str]:
    """`memory_bytes`: 100663296 → memory, 100.7 MB"""
    what, _, unit = name.rpartition("_")
    if unit == "bytes":
        return [what, output.size(value)]
    if name.endswith("_bytes_s"):
        return [name.removesuffix("_bytes_s"), f"{output.size(value)}/s"]
    if unit in ("s", "percent"):
        return [what.replace("_", " "), f"{value:g} {'s' if unit == 's' else '%'}"]
    return [name.replace("_", " "), str(value)]
