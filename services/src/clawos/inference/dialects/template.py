"""Any other GGUF: asked by its own chat template, writing freely, held to a schema once it opens a call."""

from __future__ import annotations

import codecs
import json
import secrets
from typing import Any

from clawos.inference.chat import ChatRequest, Finish, Message, TextEvent, Tool, ToolCallEvent
from clawos.inference.dialects import calls, schema
from clawos.inference.dialects.constraint import Constraint, Constraints, choose
from clawos.inference.dialects.markers import CHATML, Marker, markers_of
from clawos.inference.model import Model
from clawos.inference.ports import Emit, Prompt
from clawos.inference.sampling import Sampler
from clawos.inference.session import Session
from clawos.inference.templates import Renderer

_TEMPERATURE = 0.6


class TemplateDialect:
    """One model's template, markers and constraints."""

    name = "template"
    max_tokens = 1024

    def __init__(self, model: Model, template: str | None, render_s: float) -> None:
        self._model = model
        self._source = template or CHATML
        # Read from the vocabulary here, in the worker thread: a large one takes a while.
        self._marks, self._bos = model.control_texts, model.bos
        self._renderer = Renderer(model.name, self._source, self._bos, model.eos, render_s)
        self._markers = markers_of(self._source)
        self._constraints = Constraints(model)

    async def prompt(self, request: ChatRequest) -> Prompt:
        messages = [self._message(at, message) for at, message in enumerate(request.messages)]
        tools = [_tool(tool) for tool in request.tools]
        if tools and "tools" not in self._source:
            messages.insert(0, {"role": "system", "content": _in_words(tools)})
            tools = []
        text = await self._renderer.render(messages, tools)
        written = bool(self._bos) and text.startswith(self._bos)
        return Prompt(text, add_bos=self._model.adds_bos and not written)

    def begin(self, session: Session, request: ChatRequest, emit: Emit) -> TemplateTurn:
        if request.tools:
            self._constraints.prepare()
        temperature = _TEMPERATURE if request.temperature is None else request.temperature
        seed = secrets.randbits(32) if request.seed is None else request.seed
        markers = self._markers if request.tools else ()
        return TemplateTurn(
            session, Sampler(temperature, seed), self._constraints, markers, request.tools, emit
        )

    async def close(self) -> None:
        await self._renderer.close()

    def _message(self, at: int, message: Message) -> dict[str, Any]:
        result: dict[str, Any] = {"role": message.role, "content": self._harmless(message.content)}
        if message.tool_calls:
            result["tool_calls"] = [
                {
                    "id": f"call{at:05d}"[:9],
                    "type": "function",
                    "function": {"name": call.tool, "arguments": self._harmless_value(call.args)},
                }
                for call in message.tool_calls
            ]
        if message.role == "tool":
            result |= {"name": message.tool, "tool_call_id": f"call{at - 1:05d}"[:9]}
        return result

    def _harmless(self, text: str) -> str:
        """What people and tools say cannot forge a role or a call: control tokens lose their spelling."""
        return self._marks.sub(lambda found: f"{found[0][0]}\u200b{found[0][1:]}", text)

    def _harmless_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._harmless(value)
        if isinstance(value, dict):
            return {self._harmless(key): self._harmless_value(part) for key, part in value.items()}
        return [self._harmless_value(part) for part in value] if isinstance(value, list) else value


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = schema.arguments_schema(tool)
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _in_words(tools: list[dict[str, Any]]) -> str:
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        f"You may call these functions:\n{lines}\n"
        'To call one, write <tool_call>{"name": NAME, "arguments": {...}}</tool_call> and nothing after it.'
    )


class TemplateTurn:
    """One answer: text as it comes, until a marker opens a call."""

    def __init__(
        self,
        session: Session,
        sampler: Sampler,
        constraints: Constraints,
        markers: Any,
        tools: list[Tool],
        emit: Emit,
    ) -> None:
        self._session, self._sampler, self._constraints = session, sampler, constraints
        self._watch = calls.Watch(markers)
        self._tools, self._emit = tools, emit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._call: tuple[Marker, Constraint] | None = None
        self._written = bytearray()

    @property
    def grammar_s(self) -> float:
        return self._call[1].seconds if self._call else 0.0

    def step(self) -> bool:
        if self._call:
            return self._step_in_call(self._call[1])
        token = choose(self._session, self._sampler)
        model = self._session.model
        # Some models end their text with the token that opens a call, or mark that one as an end.
        piece = model.piece(token)
        if model.ends(token) and not self._watch.is_marker(piece):
            return True
        text, opened = self._watch.take(piece)
        self._say(text)
        if opened is None:
            self._session.push(token)
            return False
        marker, tail = opened
        self._call = (marker, self._constraints.begin(self._tools, marker))
        self._enter(token, piece, tail)
        return False

    def _enter(self, token: int, piece: bytes, tail: bytes) -> None:
        """Put the context right behind the marker: a token that reached into the call is taken apart."""
        if not tail:
            self._session.push(token)
            return
        head = piece[: len(piece) - len(tail)].decode(errors="replace")
        known = list(self._session.seen)
        self._session.read(known + self._session.model.tokenize(head, special=True, add_bos=False))

    def _step_in_call(self, constraint: Constraint) -> bool:
        constraint.mask(self._session)
        token = choose(self._session, self._sampler)
        if self._session.model.ends(token):
            return True
        constraint.take(token)
        self._written += self._session.model.piece(token)
        if constraint.complete:
            return True
        self._session.push(token)
        return False

    def _say(self, data: bytes, *, last: bool = False) -> None:
        text = self._decoder.decode(data, last)
        if text:
            self._emit(TextEvent(text))

    def finish(self, *, cut: bool) -> Finish:
        self._say(self._watch.rest(), last=True)
        if self._call is None or cut:
            return "length" if cut else "stop"
        found = calls.read(self._written.decode(errors="replace"), self._call[0])
        by_name = {tool.name: tool for tool in self._tools}
        for name, arguments in found:
            schema.validate(by_name[name], arguments)
        for name, arguments in found:
            self._emit(ToolCallEvent(name, arguments))
        return "tool_calls"

    def close(self) -> None:
        self._sampler.close()
