"""`!command`: verbatim into the sandbox, with its own stdin, stdout, stderr and exit code.

The sandbox never gets the terminal itself: a program that has it can type into it. What is typed goes through
a pipe; a file or a pipe that stdin already is goes through as it is.
"""

from __future__ import annotations

import codecs
import json
import os
import select
import stat
import time

from clawos.clawsh import exit_codes
from clawos.clawsh.events import CommandResult, EventInvalid
from clawos.clawsh.interrupt import Interrupts
from clawos.clawsh.view import LIMITS
from clawos.core.errors import ClawError
from clawos.core.wire import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clawos.clawsh.agent import Agent
    from clawos.clawsh.sink import Sink

_CHUNK = 65536
CANCEL_S = 5


def run(
    agent: Agent, command: str, stdin: int | None, stdout: Sink, stderr: Sink, *, as_json: bool = False
) -> int:
    """Run one command. `stdin` None means none. Returns its exit code; raises ReaderGone."""
    with Interrupts() as interrupts:
        agent.wire.wake_fd = interrupts.fd
        feed = _Feed(stdin)
        relay = None
        try:
            fds = agent.execute(command, feed.inner)
            feed.close_inner()
            if as_json:
                stdout.write(_announce(command))
            relay = _Relay(fds, stdout, stderr, keep=as_json)
            result = relay.follow(agent, feed, interrupts)
        except Interrupted:
            agent.forget()
            return exit_codes.INTERRUPTED
        finally:
            feed.close()
            if relay is not None:
                relay.close()
            agent.release()
        if result is None:
            return exit_codes.INTERRUPTED
        if as_json:
            stdout.write(_result_json(result, relay))
        elif result.limit and result.limit != "cancelled":
            stderr.line(f"clawsh: stopped: {LIMITS.get(result.limit, 'a limit')}")
        return exit_codes.of_command(result.exit_code, result.signal, result.limit)


class _Feed:
    """Stdin of the command: handed over, or pumped from the terminal through a pipe."""

    def __init__(self, stdin: int | None) -> None:
        self.source: int | None = None
        self._pipe: int | None = None
        if stdin is None:
            self.inner = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        elif _may_be_handed_over(stdin):
            self.inner = os.dup(stdin)
        else:
            self.inner, self._pipe = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._pipe, False)
            self.source = stdin
        self._pending = b""

    @property
    def full(self) -> bool:
        return bool(self._pending)

    @property
    def drain(self) -> int | None:
        return self._pipe if self._pending else None

    def pump(self) -> None:
        """Take what is there and pass on what fits."""
        assert self.source is not None
        if not self._pending:
            try:
                self._pending = os.read(self.source, _CHUNK)
            except OSError:  # the terminal hung up
                self._pending = b""
            if not self._pending:
                self.close()
                return
        assert self._pipe is not None
        try:
            self._pending = self._pending[os.write(self._pipe, self._pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command does not read
            self.close()

    def close_inner(self) -> None:
        if self.inner >= 0:
            os.close(self.inner)
            self.inner = -1

    def close(self) -> None:
        self.close_inner()
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        self.source, self._pending = None, b""


def _may_be_handed_over(fd: int) -> bool:
    """Pipes, and files open for reading only: through them nothing can be done but read what was meant to be
    read."""
    import fcntl

    try:
        mode = os.fstat(fd).st_mode
        read_only = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    except OSError:
        return False
    return read_only and (stat.S_ISFIFO(mode) or stat.S_ISREG(mode))


class _Relay:
    """Carries stdout and stderr of the command to ours until the result is there."""

    def __init__(self, fds: tuple[int, int, int], stdout: Sink, stderr: Sink, *, keep: bool) -> None:
        self._out, self._err, self._result = fds
        self._open = set(fds)
        self._sinks = {self._out: stdout, self._err: stderr}
        self._contents = {fd: sink.content() for fd, sink in self._sinks.items()}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {fd: decoder("replace") for fd in self._sinks}
        self._line = b""
        self.kept: list[str] | None = [] if keep else None

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def follow(self, agent: Agent, feed: _Feed, interrupts: Interrupts) -> CommandResult | None:
        """Until all three streams have ended. None when it was cancelled and does not end."""
        deadline: float | None = None
        while self._open:
            poller = select.poll()
            for fd in self._open:
                poller.register(fd, select.POLLIN)
            poller.register(interrupts.fd, select.POLLIN)
            if feed.source is not None and not feed.full:
                poller.register(feed.source, select.POLLIN)
            if feed.drain is not None:
                poller.register(feed.drain, select.POLLOUT)
            wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = {fd for fd, _ in poller.poll(wait)}
            if interrupts.fd in ready:
                interrupts.take()
                if deadline is not None:
                    return None
                deadline = time.monotonic() + CANCEL_S
                for sink in self._sinks.values():
                    sink.at_line_start = not sink.terminal  # the terminal has shown ^C
                _cancel(agent)
            elif not ready:
                return None
            if {feed.source, feed.drain} & ready - {None}:
                feed.pump()
            # Both outputs before the result: nothing may be lost when all three end at once.
            for fd in (self._out, self._err, self._result):
                if fd in ready and fd in self._open:
                    self._take(fd)
        for sink in self._sinks.values():
            if sink.terminal:
                sink.end_line()
        if not self._line:
            raise EventInvalid(
                "the agent stopped in the middle of the work", "see 'journalctl -u clawos-agent -n 20'"
            )
        result = CommandResult(self._line)
        return result if deadline is None else None

    def _take(self, fd: int) -> None:
        data = os.read(fd, _CHUNK)
        if not data:
            os.close(fd)
            self._open.discard(fd)
        if fd == self._result:
            self._line += data
            return
        sink = self._sinks[fd]
        if self.kept is not None:
            self.kept.append(self._decoders[fd].decode(data, final=not data))
        elif sink.terminal:
            self._contents[fd].write(self._decoders[fd].decode(data, final=not data))
        elif data:
            sink.write_bytes(data)


def _cancel(agent: Agent) -> None:
    agent.wire.wake_fd = None
    try:
        agent.cancel()
    except ClawError:
        return  # it is over, or the agent is gone: the streams tell


def _announce(command: str) -> str:
    call = {"type": "tool_call", "call": "!", "tool": "shell.run", "args": {"command": command}}
    return json.dumps({**call, "class": "cautious", "summary": f"!{command}"}) + "\n"


def _result_json(result: CommandResult, relay: _Relay) -> str:
    fields = {
        "type": "tool_result",
        "call": "!",
        "tool": "shell.run",
        "ok": not (result.exit_code or result.signal or result.limit),
        "exit_code": result.exit_code,
        "signal": result.signal,
        "limit": result.limit,
        "output": "".join(relay.kept or []),
        "truncated": False,
        "wall_s": result.wall_s,
    }
    return json.dumps(fields) + "\n"
