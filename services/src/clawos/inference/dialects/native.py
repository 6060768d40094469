"""The built-in model's own dialect: a GBNF grammar over a small vocabulary, and a guard after it."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from clawos.inference import builtin
from clawos.inference.chat import ChatRequest, Finish, TextEvent, Tool, ToolCallEvent
from clawos.inference.errors import GrammarInvalid
from clawos.inference.model import Model
from clawos.inference.ports import Emit, Prompt
from clawos.inference.sampling import Gbnf, GbnfState, Sampler
from clawos.inference.session import Session

_KEPT_GRAMMARS = 4


def tool_specs(tools: list[Tool]) -> list[builtin.ToolSpec]:
    """The tools as the dialect knows them. Raises GrammarInvalid for what it cannot express."""
    try:
        specs = [builtin.ToolSpec.from_json(msgspec.to_builtins(tool)) for tool in tools]
        builtin.grammar(specs)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GrammarInvalid(f"tools: {error}", "correct the tool's schema") from None
    return specs


class NativeDialect:
    """For models that name `clawos-call-1` in their metadata."""

    name = builtin.DIALECT
    max_tokens = builtin.MAX_TOKENS

    def __init__(self, model: Model) -> None:
        self._model = model
        # The model copies and never invents: drawing at random could only make it worse.
        self._sampler = Sampler(temperature=0, seed=0)
        self._grammars: OrderedDict[str, Gbnf] = OrderedDict()

    async def prompt(self, request: ChatRequest) -> Prompt:
        return Prompt(builtin.prompt(msgspec.to_builtins(request.messages)), add_bos=self._model.adds_bos)

    def begin(self, session: Session, request: ChatRequest, emit: Emit) -> NativeTurn:
        specs = tool_specs(request.tools)
        words = builtin.request(msgspec.to_builtins(request.messages))
        return NativeTurn(session, self._grammar(specs).fresh(), self._sampler, specs, words, emit)

    def _grammar(self, specs: list[builtin.ToolSpec]) -> Gbnf:
        text = builtin.grammar(specs)
        known = self._grammars.pop(text, None) or Gbnf(self._model, text)
        self._grammars[text] = known
        while len(self._grammars) > _KEPT_GRAMMARS:
            self._grammars.popitem(last=False)[1].close()
        return known

    async def close(self) -> None:
        for grammar in self._grammars.values():
            grammar.close()
        self._sampler.close()


class NativeTurn:
    """One answer in the dialect. It is no text for people: nothing is emitted before it is checked."""

    def __init__(
        self,
        session: Session,
        grammar: GbnfState,
        sampler: Sampler,
        specs: list[builtin.ToolSpec],
        words: str,
        emit: Emit,
    ) -> None:
        self._session, self._grammar, self._sampler = session, grammar, sampler
        self._specs, self._words, self._emit = specs, words, emit
        self._stops = [stop.encode() for stop in builtin.STOP]
        self._written = bytearray()

    @property
    def grammar_s(self) -> float:
        return self._grammar.seconds

    def step(self) -> bool:
        token = self._grammar.pick(self._session, self._sampler)
        model = self._session.model
        if model.ends(token):
            return True
        self._written += model.piece(token)
        if any(self._written.endswith(stop) for stop in self._stops):
            return True
        self._session.push(token)
        return False

    def finish(self, *, cut: bool) -> Finish:
        if cut:
            # Half a call may look like a whole one with a shorter path.
            return "length"
        reply = builtin.parse(self._written.decode(errors="replace"), self._words, self._specs)
        for call in reply.calls:
            self._emit(ToolCallEvent(call.tool, dict(call.arguments)))
        if reply.text:
            self._emit(TextEvent(reply.text))
        return "tool_calls" if reply.calls else "stop"

    def close(self) -> None:
        self._grammar.close()
