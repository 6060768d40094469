"""What a turn looks like: a `View` is told of each event, in order."""

from __future__ import annotations

from clawos.clawsh.clean import visible
from clawos.clawsh.sink import Content, Sink, is_dumb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from clawos.clawsh.events import Event

    class View(Protocol):
        """Shows a turn."""

        def waiting(self, what: str) -> None: ...

        def cancelling(self) -> None: ...

        def show(self, event: Event) -> None: ...

        def fail(self, name: str, message: str, hint: str) -> None: ...

        def note(self, text: str) -> None: ...

        def end(self, status: str) -> None: ...


SHOWN_AS_JSON = ("tool_call", "tool_result", "text", "approval_required", "error")
# Why a call ended that its sandbox stopped, by the isolator's name of the limit.
LIMITS = {
    "wall": "it took longer than it may",
    "memory": "it wanted more memory than it may have",
    "pids": "it started more processes than it may",
    "output": "it wrote more than it may",
    "fuel": "it took more steps than it may",
    "stack": "it called itself deeper than it may",
    "cancelled": "cancelled",
}
LAST_WORDS = {
    "approval_needed": "this needs your approval, and there is nobody to ask: run clawsh on a terminal",
    "refused": "refused: this call did not run",
    "timed_out": "stopped: it took too long",
    "interrupted": "interrupted",
}
_LONG_VALUE = 400


def arguments(args: dict[str, Any]) -> str:
    """Arguments of a call on one line, with everything in them visible."""
    return "".join(f" {visible(name)}={argument(value)}" for name, value in args.items())


def argument(value: Any, longest: int = _LONG_VALUE) -> str:
    text = visible(value if isinstance(value, str) else str(value))
    if isinstance(value, str) and (not text or set(text) & set(" \"'=")):
        text = quoted(text)
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def ending(exit_code: int | None, signal: int | str | None, limit: str | None) -> str:
    """How a call ended when it did not end well, in words."""
    if limit:
        return f"stopped: {LIMITS.get(limit, visible(limit))}"
    if signal:
        return f"ended by signal {visible(str(signal))}"
    return "did not run" if exit_code is None else f"failed with exit code {exit_code}"


class TextView:
    """A turn for a person: the answer on stdout, what is going on on stderr.

    Whether a tool's output is the answer or on the way to it is known only later: it is the answer when the
    turn ends without a word from the model after it. Where both streams end at the same terminal the question
    does not matter and output is shown as it comes; else it is held until it is known where it belongs.
    """

    def __init__(
        self,
        stdout: Sink,
        stderr: Sink,
        *,
        plan: bool = False,
        interactive: bool = False,
        max_lines: int | None = None,
    ) -> None:
        self._stdout, self._stderr = stdout, stderr
        self._calls = stdout if plan else stderr  # of a plan the calls are the answer
        self._live = stdout.terminal and stderr.terminal
        self._interactive = interactive
        self._max_lines = max_lines if self._live else None
        self._status = False
        self._text: Content | None = None
        self._output: Content | None = None
        self._output_left_out = 0
        self._streamed: dict[str, list[str]] = {}
        self._held: list[tuple[bool, str]] = []
        self._explained = False
        self.outputs: list[str] = []

    def waiting(self, what: str) -> None:
        if self._live and not is_dumb() and not self._status and self._stderr.at_line_start:
            self._stderr.write_bytes(self._stderr.style(f"{what}...", "dim").encode())
            self._status = True

    def cancelling(self) -> None:
        self._clear_status()
        self._stderr.at_line_start = not self._stderr.terminal  # the terminal has shown ^C

    def show(self, event: Event) -> None:
        if event.type == "state":
            if event["state"] == "thinking":
                self.waiting("thinking")
            return
        self._clear_status()
        handler = getattr(self, f"_on_{event.type}", None)
        if handler is not None:
            handler(event)

    def fail(self, name: str, message: str, hint: str) -> None:  # noqa: ARG002 -- names are for programs
        self._clear_status()
        self._end_lines()
        self._explained = True
        self._stderr.line(self._stderr.style("clawsh: ", "bad") + visible(message))
        for line in hint.splitlines():
            self._stderr.line(f"        {visible(line)}")

    def note(self, text: str) -> None:
        """Something beside the turn itself."""
        self._clear_status()
        self._end_lines()
        self._stderr.line(f"  {self._stderr.style(text, 'dim')}")

    def end(self, status: str) -> None:
        self._clear_status()
        self._end_lines()
        for ok, output in self._held:
            self._whole(self._stdout if ok else self._stderr, output)
        self._held.clear()
        words = LAST_WORDS.get(status)
        if words:
            self._stderr.line(self._stderr.style(f"clawsh: {words}", "dim"))
        elif status == "failed" and not self._explained:
            self._stderr.line(self._stderr.style("clawsh: ", "bad") + "that did not work")

    def _on_text(self, event: Event) -> None:
        self._release()
        if self._text is None:
            self._end_lines()
            self._text = self._stdout.content()
        self._text.write(event["text"])

    def _on_tool_call(self, event: Event) -> None:
        self._call(event, "" if event["class"] == "safe" else event["class"])

    def _on_call_edited(self, event: Event) -> None:
        self._call(event, "edited")

    def _call(self, event: Event, remark: str) -> None:
        self._end_lines()
        style = self._calls.style
        name = style(visible(event["tool"]), "tool")
        remark = style(f"  ({visible(remark)})", "ask") if remark else ""
        self._calls.line(f"* {name}{arguments(event['args'])}{remark}")

    def _on_tool_output(self, event: Event) -> None:
        self._streamed.setdefault(event["call"], []).append(event["text"])
        if self._live:
            self._show_output(event["text"])

    def _on_tool_result(self, event: Event) -> None:
        streamed = "".join(self._streamed.pop(event["call"], []))
        output = event["output"] or streamed
        self.outputs.append(output)
        if self._live:
            if not streamed:
                self._show_output(output)
            self._end_lines()
            if self._output_left_out:
                more = " (/output shows all)" if self._interactive else ""
                self._stderr.line(
                    self._stderr.style(f"  ... {self._output_left_out} more lines{more}", "dim")
                )
            self._output, self._output_left_out = None, 0
        else:
            self._held.append((event["ok"], output))
        took = self._stderr.style(f"({event['wall_s']:.2f} s)", "dim")
        if event["truncated"]:
            self._stderr.line(self._stderr.style("  only the beginning of the output was kept", "dim"))
        if event["ok"]:
            self._stderr.line(f"  {took}")
        else:
            self._explained = True
            why = ending(event["exit_code"], event["signal"], event["limit"])
            self._stderr.line(f"  {self._stderr.style(why, 'bad')} {took}")

    def _on_error(self, event: Event) -> None:
        self.fail(event["name"], event["message"], event["hint"])

    def _show_output(self, text: str) -> None:
        if self._output is None:
            self._end_lines()
            self._output = Content(self._stdout, indent="  ")
        if self._max_lines is not None:
            lines = text.splitlines(keepends=True)
            room = max(0, self._max_lines - self._output.lines)
            self._output_left_out += len(lines[room:])
            text = "".join(lines[:room])
        self._output.write(text)

    def _release(self) -> None:
        """The model goes on speaking: what the tools printed was not the answer."""
        for _, output in self._held:
            self._whole(self._stderr, output)
        self._held.clear()

    def _whole(self, sink: Sink, output: str) -> None:
        sink.content().write(output)
        sink.end_line()

    def _end_lines(self) -> None:
        self._text = None
        self._stdout.end_line()
        self._stderr.end_line()

    def _clear_status(self) -> None:
        if self._status:
            self._stderr.write_bytes(b"\r\x1b[K")
            self._status = False
