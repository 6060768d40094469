"""One answer of the model: text as it comes, calls, and the counts at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from clawos.agent.conversation import ToolCall
from clawos.agent.errors import ModelFailed
from clawos.agent.events import ModelCall, ModelDone, ModelError, ModelEvent, ModelText
from clawos.agent.ports import ChatRequest, Generation, Model
from clawos.core.errors import PREFIX, RemoteError, Unavailable
from clawos.core.stream import open_reader

CANCEL_TIMEOUT_S = 5.0
MAX_CALLS = 16
"""Calls in one answer; a model that writes more is out of order."""

_decoder = msgspec.json.Decoder(ModelEvent)


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    calls: tuple[ToolCall, ...]
    done: ModelDone


async def ask(model: Model, request: ChatRequest, on_text: Callable[[str], Awaitable[None]]) -> Answer:
    """Have the model answer. Left early, by cancellation or by an error of `on_text`, it ends the generation.

    Raises RemoteError with the inference service's own error, ModelFailed, or Unavailable.
    """
    generation = await model.start(request)
    over = False
    try:
        answer = await _read(generation, on_text)
        over = True
    finally:
        if not over:
            await _end(model, generation)
    return answer


async def _end(model: Model, generation: Generation) -> None:
    try:
        async with asyncio.timeout(CANCEL_TIMEOUT_S):
            await model.cancel(generation.id)
    except TimeoutError:
        return


async def _read(generation: Generation, on_text: Callable[[str], Awaitable[None]]) -> Answer:
    texts: list[str] = []
    calls: list[ToolCall] = []
    done: ModelDone | None = None
    reader, transport = await open_reader(generation.events)
    try:
        while line := await reader.readline():
            match _event(line):
                case ModelText(text):
                    texts.append(text)
                    await on_text(text)
                case ModelCall(tool, args):
                    calls.append(ToolCall(tool=tool, args=args))
                case ModelError(name, message, hint):
                    raise RemoteError(name if "." in name else PREFIX + name, message, hint)
                case ModelDone() as last:
                    done = last
    finally:
        transport.close()
    if done is None:
        raise Unavailable(
            "the inference service ended before its answer did",
            "see 'journalctl -u clawos-inference'",
            unit="clawos-inference",
        )
    if done.finish == "cancelled":
        raise ModelFailed("the model's answer was cancelled", "ask again")
    if len(calls) > MAX_CALLS:
        raise ModelFailed(f"the model asked for {len(calls)} calls at once", "ask again in other words")
    return Answer("".join(texts), tuple(calls), done)


def _event(line: bytes) -> ModelEvent:
    try:
        event: ModelEvent = _decoder.decode(line)
    except msgspec.DecodeError as error:
        raise ModelFailed(
            f"the inference service sent what is no event: {error}", "please report this"
        ) from None
    return event
