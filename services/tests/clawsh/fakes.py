"""Fakes of the services that clawsh talks to: real interfaces with the real signatures, scripted by the
request.

Run as a program (`python fakes.py ADDRESS LOG UID`) it serves all of one name and writes each call as a JSON
line to LOG.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from clawos.core.bus import Bus, Fd, Interface, Str, caller, method
from clawos.core.errors import BadRequest, Busy, ClawError
from clawos.core.stream import StreamClosed, Writer

MEMORY = "total 24.0 GB\nused   3.1 GB\nfree  20.9 GB\n"
EVIL = "a\x1b[31mred\x1b[0m\x1b]52;c;ZXZpbA==\x07b\x1b]0;title\x1b\\c\x9b2Jd\u202ee\rf\n"
TOOLS = [
    {
        "name": "memory.usage",
        "description": "Show how much memory is used and free.",
        "class": "safe",
        "parameters": {"type": "object", "properties": {}, "required": []},
        "verbs": [],
    },
    {
        "name": "unit.restart",
        "description": "Restart a service.",
        "class": "cautious",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "description": "name of a systemd unit"}},
            "required": ["unit"],
        },
        "verbs": ["restart"],
    },
]


ASKS = {
    "unit.restart": "restart {unit}",
    "file.delete": "delete {path}",
    "file.write": "write {text} to {path}",
}


class ArgumentsInvalid(ClawError):
    """A value does not fit the tool."""

    name = "ArgumentsInvalid"


class NoSuchSession(ClawError):
    """The session is not known (any more)."""

    name = "NoSuchSession"


class Turn:
    """One scripted turn, writing its events."""

    def __init__(self, number: int, writer: Writer, interactive: bool) -> None:
        self.id, self.writer, self.interactive = f"t{number}", writer, interactive
        self.cancelled = asyncio.Event()
        self.answer = asyncio.Event()
        self.decision = ""
        self.edited: dict[str, Any] | None = None
        self.waits_for = ""

    async def send(self, kind: str, **fields: Any) -> None:
        await self.writer.send_json({"type": kind, "turn": self.id, **fields})

    async def cancelled_or_gone(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self.cancelled, self.writer.gone)]
        await asyncio.wait(waits, return_when="FIRST_COMPLETED")
        for wait in waits:
            wait.cancel()

    async def call(
        self, tool: str, args: dict[str, Any], safety: str = "safe", kind: str = "tool_call", call: str = "c1"
    ) -> None:
        more = {"asks": ASKS.get(tool, "")} if kind == "approval_required" else {}
        await self.send(kind, call=call, tool=tool, args=args, summary=tool, **{"class": safety}, **more)

    async def result(self, tool: str, output: str, call: str = "c1", **more: Any) -> None:
        fields = {
            "exit_code": 0,
            "signal": None,
            "limit": None,
            "truncated": False,
            "wall_s": 0.05,
            "ok": True,
        }
        await self.send("tool_result", call=call, tool=tool, output=output, **{**fields, **more})

    async def done(self, status: str = "done") -> None:
        times = {"model_s": 0.1, "tool_s": 0.05, "wall_s": 0.2}
        await self.send("done", status=status, model="fake", prompt_tokens=1, completion_tokens=1, **times)


async def _approved(turn: Turn, tool: str, args: dict[str, Any], safety: str, call: str = "c1") -> str:
    """One call that is asked for. Returns how the turn ends if no other call follows."""
    turn.waits_for = call
    turn.answer.clear()
    await turn.call(tool, args, safety, call=call)
    await turn.call(tool, args, safety, "approval_required", call=call)
    if not turn.interactive:
        return "approval_needed"
    cancelled = asyncio.ensure_future(turn.cancelled.wait())
    await asyncio.wait((cancelled, asyncio.ensure_future(turn.answer.wait())), return_when="FIRST_COMPLETED")
    cancelled.cancel()
    if turn.cancelled.is_set():
        return "interrupted"
    if turn.decision == "no":
        return "refused"
    if turn.edited is not None:
        await turn.call(tool, turn.edited, safety, "call_edited", call=call)
    await turn.result(tool, f"ran after {turn.decision}\n", call=call)
    return "done"


async def _play(turn: Turn, text: str) -> None:
    await turn.send("state", state="thinking")
    word = text.split()[0]
    if word == "slow":
        await turn.send("text", text="partial")
        await turn.cancelled_or_gone()
        await turn.done("interrupted")
    elif word == "stuck":
        await turn.writer.gone.wait()
    elif word == "crash":
        await turn.send("text", text="half an ans")
    elif word == "say":
        for piece in text[4:]:
            await turn.send("text", text=piece)
        await turn.done()
    elif word == "evil":
        await turn.send("text", text=EVIL[:10])
        await turn.send("text", text=EVIL[10:])
        await turn.done()
    elif word == "both":
        await turn.call("memory.usage", {})
        await turn.result("memory.usage", MEMORY)
        await turn.send("text", text="You have 20.9 GB.")
        await turn.done()
    elif word == "long":
        await turn.call("memory.usage", {})
        await turn.send("tool_output", call="c1", text="".join(f"line {n}\n" for n in range(100)))
        await turn.result("memory.usage", "".join(f"line {n}\n" for n in range(100)))
        await turn.done()
    elif word == "restart":
        await turn.done(await _approved(turn, "unit.restart", {"unit": text.partition(" ")[2]}, "cautious"))
    elif word == "twice":
        for call, unit in enumerate(text.split()[1:]):
            status = await _approved(turn, "unit.restart", {"unit": unit}, "cautious", f"c{call}")
            if status != "done":
                break
        await turn.done(status)
    elif word == "write":
        path, _, written = text.removeprefix("write ").partition(" ")
        args = {"path": path, "text": written.replace("|", "\n")}
        await turn.done(await _approved(turn, "file.write", args, "cautious"))
    elif word == "wordless":
        await turn.done(await _approved(turn, "lamp.dim", {"percent": 40, "slowly": True}, "cautious"))
    elif word == "bare":
        await turn.done(await _approved(turn, "lamp.out", {}, "cautious"))
    elif word == "delete":
        await asyncio.sleep(0.5)
        await turn.done(await _approved(turn, "file.delete", {"path": text.partition(" ")[2]}, "dangerous"))
    elif word == "broken":
        await turn.call("disk.usage", {"path": "/x"})
        await turn.result("disk.usage", "no such file\n", ok=False, exit_code=1)
        await turn.done("failed")
    elif word == "model":
        await turn.send(
            "error",
            name="org.clawos.Error.ModelMissing",
            message="there is no model",
            hint="add one: claw model add FILE",
        )
        await turn.done("failed")
    elif word == "end":
        await turn.done(text.split()[1])
    elif word == "junk":
        await turn.writer.send(b"not json\n")
    else:
        await turn.call("memory.usage", {})
        await turn.result("memory.usage", MEMORY)
        await turn.done()


class FakeAgent(Interface):
    """`org.clawos.Agent1`. Commands of Exec run unconfined: only for what a test writes itself."""

    def __init__(self, log: str) -> None:
        super().__init__()
        self._log = log
        self._turns: dict[str, Turn] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._sessions: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self._restarted = False

    def _record(self, member: str, **what: Any) -> None:
        self._write({"member": member, "uid": caller().uid, **what})

    def _write(self, what: dict[str, Any]) -> None:
        with open(self._log, "a") as file:
            file.write(json.dumps(what) + "\n")

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check(self, session: str) -> None:
        if session not in self._sessions:
            raise NoSuchSession("there is no such session", "open one")

    @method
    async def open_session(self, options: Str) -> Str:
        wanted = json.loads(options)
        self._record("OpenSession", **wanted)
        self._count += 1
        session = f"s{self._count}"
        self._sessions[session] = wanted["name"]
        return session

    @method
    async def ask(self, session: Str, request: Str) -> tuple[Str, Fd]:
        self._check(session)
        wanted = json.loads(request)
        self._record("Ask", session=session, **wanted)
        if wanted["text"] == "busy":
            raise Busy("this session is busy", "wait, or cancel")
        if wanted["text"] == "bad":
            raise BadRequest("too long")
        if wanted["text"] == "restarted":
            self._restarted = not self._restarted
            if self._restarted:
                self._sessions.clear()
                self._check(session)
        fd, writer = await Writer.open()
        self._count += 1
        turn = Turn(self._count, writer, wanted["interactive"])
        self._turns[session] = turn
        self._start(self._run(turn, wanted))
        return turn.id, fd

    async def _run(self, turn: Turn, wanted: dict[str, Any]) -> None:
        try:
            if wanted["plan"]:
                await turn.call("unit.restart", {"unit": "nginx"}, "cautious")
                await turn.done("planned")
            else:
                await _play(turn, wanted["text"])
        except StreamClosed:
            self._write({"member": "reader gone"})
        finally:
            await turn.writer.close()

    @method
    async def exec(self, session: Str, request: Str, stdin: Fd) -> tuple[Str, Fd, Fd, Fd]:
        self._check(session)
        command = json.loads(request)["command"]
        self._record("Exec", session=session, command=command, stdin_is_terminal=os.isatty(stdin))
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        result, writer = await Writer.open()
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", command, stdin=stdin, stdout=out_write, stderr=err_write, start_new_session=True
        )
        for fd in (stdin, out_write, err_write):
            os.close(fd)
        self._running[session] = process
        self._start(self._wait(session, process, writer))
        return "t", out_read, err_read, result

    async def _wait(self, session: str, process: asyncio.subprocess.Process, writer: Writer) -> None:
        code = await process.wait()
        limit = "cancelled" if self._running.pop(session, None) is None else None
        ended = {"exit_code": code, "signal": None} if code >= 0 else {"exit_code": None, "signal": -code}
        await writer.send_json({**ended, "limit": limit, "wall_s": 0.1, "cpu_s": 0.0, "peak_memory_bytes": 1})
        await writer.close()

    @method
    async def approve(self, session: Str, answer: Str) -> None:
        self._record("Approve", **json.loads(answer))
        turn = self._turns[session]
        given = json.loads(answer)
        if given["call"] != turn.waits_for:
            raise BadRequest(f"no call {given['call']} waits for an answer")
        turn.edited = given.get("args")
        if turn.edited and " " in str(turn.edited.get("unit", "")):
            raise ArgumentsInvalid("unit.restart: unit must match a pattern", "see '/tools'")
        turn.decision = given["decision"]
        turn.answer.set()

    @method
    async def cancel(self, session: Str) -> None:
        self._record("Cancel")
        if session in self._turns:
            self._turns[session].cancelled.set()
        process = self._running.pop(session, None)
        if process is not None:
            os.killpg(process.pid, 9)

    @method
    async def history(self, session: Str) -> Str:
        said = [
            {"role": "user", "content": "how much memory is free?", "time": 1.0},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"tool": "memory.usage", "args": {}}],
                "time": 2.0,
            },
            {"role": "tool", "tool": "memory.usage", "content": MEMORY, "time": 3.0},
        ]
        return json.dumps(said)

    @method
    async def tools(self) -> Str:
        return json.dumps(TOOLS)

    @method
    async def status(self) -> Str:
        return json.dumps({"sessions": 1, "states": {"idle": 1}, "tools": len(TOOLS), "tools_invalid": []})


class NoSuchCall(ClawError):
    """Nothing of that call is known."""

    name = "NoSuchCall"


class FakeMonitor(Interface):
    """`org.clawos.Monitor1`, as far as clawsh asks it."""

    @method
    async def trace(self, request: Str) -> Str:
        asked = json.loads(request)
        if asked["call"] not in ("last", "c0ffee"):
            raise NoSuchCall(
                "you have no call 'x', or it was long ago", "the monitor remembers those of late"
            )
        libraries = [f"/usr/lib/lib{n}.so" for n in range(30)]
        return json.dumps(
            {
                "call": "c0ffee",
                "tool": "shell.run",
                "session": asked.get("session", ""),
                "user": 0,
                "began": "2026-11-21T12:00:00.000000Z",
                "programs": [
                    {"time": "", "path": "/bin/sh", "args": ["sh", "-c", "cat a\x1b[31m"], "pid": 7}
                ],
                "files": {"read": ["/home/u/a", *libraries], "written": ["/home/u/b"], "removed": []},
                "connections": ["connected to 198.19.255.1 port 8118"],
                "other": [],
                "alerts": [
                    {"rule": "r", "severity": "high", "message": "it did"},
                    {"rule": "n", "severity": "info", "message": "it looked"},
                    {"rule": "l", "severity": "low", "message": "x" * 300},
                ],
                "complete": False,
            }
        )


async def main(address: str, log: str, uid: str) -> None:
    # Before the user changes: only root, and who bears its name, may have the monitor's.
    monitor = await Bus.connect(address)
    await monitor.serve("org.clawos.Monitor1", "/org/clawos/Monitor1", FakeMonitor())
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))  # only now: the bus policy lets only this user have the name
    bus = await Bus.connect(address)
    await bus.serve("org.clawos.Agent1", "/org/clawos/Agent1", FakeAgent(log))
    print("ready", flush=True)
    await bus.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
