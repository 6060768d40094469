"""The built-in model's way: it reads the request once, and what it finds becomes calls or words of ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from clawos.inference import builtin
from clawos.inference.builtin.prompt import DIALECT, TOKENS, request
from clawos.inference.chat import ChatRequest, Finish, TextEvent, Tool, ToolCallEvent
from clawos.inference.errors import GrammarInvalid
from clawos.inference.model import Model
from clawos.inference.ports import Emit, Outcome, Work
from clawos.inference.session import Cancelled
from clawos.inference.tagger import Tagger


def tool_specs(tools: list[Tool]) -> list[builtin.ToolSpec]:
    """The tools as the dialect knows them. Raises GrammarInvalid for what it cannot express."""
    try:
        return [builtin.ToolSpec.from_json(msgspec.to_builtins(tool)) for tool in tools]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GrammarInvalid(f"tools: {error}", "correct the tool's schema") from None


class TagDialect:
    """For models that name `clawos-tags-1` in their metadata."""

    name = DIALECT

    def __init__(self, model: Model, metadata: Mapping[str, Any]) -> None:
        self._tagger = Tagger(model, metadata, TOKENS)

    @property
    def context_tokens(self) -> int:
        return self._tagger.encoder.context_tokens

    async def prepare(self, asked: ChatRequest) -> builtin.Request | None:
        return request(msgspec.to_builtins(asked.messages))

    def answer(self, work: Work, prepared: builtin.Request | None, emit: Emit) -> Outcome:
        if prepared is None or not prepared.text:
            return Outcome("stop")
        specs = tool_specs(work.request.tools)
        begun = time.perf_counter()
        count = len(self._tagger.tokens(prepared)[0])
        try:
            work.enter(self._tagger.encoder)
            reading = self._tagger.read(prepared)
        except Cancelled:
            return Outcome("cancelled", count)
        finally:
            work.leave()
        read = time.perf_counter()
        reply = builtin.parse(reading, prepared, specs)
        for call in reply.calls:
            emit(ToolCallEvent(call.tool, dict(call.arguments)))
        if reply.text:
            emit(TextEvent(reply.text))
        finish: Finish = "tool_calls" if reply.calls else "stop"
        return Outcome(finish, count, 0, read - begun, time.perf_counter() - read)

    async def close(self) -> None:
        """Nothing of its own beside what `release` ends."""

    def release(self) -> None:
        self._tagger.close()
