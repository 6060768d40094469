"""Choosing the next token, by llama.cpp's own samplers."""

from __future__ import annotations

import ctypes
import math
import time
from typing import Any

from clawos.inference.errors import GrammarInvalid
from clawos.inference.library import library
from clawos.inference.model import Model
from clawos.inference.session import Session

_REFUSED = -math.inf


class Sampler:
    """A chain of samplers: greedy at temperature 0, else top-k, top-p, min-p and a draw."""

    def __init__(self, temperature: float, seed: int) -> None:
        self._api = library().api
        parameters = self._api.llama_sampler_chain_default_params()
        parameters.no_perf = True
        self._chain = self._api.llama_sampler_chain_init(parameters)
        self._sample = self._api.llama_sampler_sample
        self.greedy = temperature <= 0
        if self.greedy:
            self._add(self._api.llama_sampler_init_greedy())
        else:
            self._add(self._api.llama_sampler_init_top_k(40))
            self._add(self._api.llama_sampler_init_top_p(0.95, 1))
            self._add(self._api.llama_sampler_init_min_p(0.05, 1))
            self._add(self._api.llama_sampler_init_temp(temperature))
            self._add(self._api.llama_sampler_init_dist(seed))

    def _add(self, sampler: Any) -> None:
        self._api.llama_sampler_chain_add(self._chain, sampler)

    def pick(self, session: Session) -> int:
        token: int = self._sample(self._chain, session.handle, -1)
        return token

    def close(self) -> None:
        if self._chain:
            self._api.llama_sampler_free(self._chain)
            self._chain = None


class Gbnf:
    """llama.cpp's own grammar, parsed once for a set of tools; `fresh` gives its state for one answer."""

    def __init__(self, model: Model, grammar: str) -> None:
        self._api = library().api
        library().complaints.clear()
        data = grammar.encode()
        if b"\0" in data or not data.strip():
            raise GrammarInvalid("the grammar is empty or holds a zero byte", "correct the tools' names")
        self._sampler = self._api.llama_sampler_init_grammar(model.vocab, data, b"root")
        # NULL is its answer to a grammar that it cannot parse, and using NULL would end the process.
        if not self._sampler:
            raise GrammarInvalid(
                f"llama.cpp refuses the grammar: {library().reason}", "correct the tools' schemas"
            )
        self._one, self._all = _Candidates(range(1)), _Candidates(range(model.vocabulary))

    def fresh(self) -> GbnfState:
        """Its state for one answer. Answers are written one at a time, so they share the candidates."""
        return GbnfState(self._one, self._all, self._api.llama_sampler_clone(self._sampler))

    def close(self) -> None:
        if self._sampler:
            self._api.llama_sampler_free(self._sampler)
            self._sampler = None


class _Candidates:
    """Tokens with their scores, as llama.cpp's samplers take them."""

    def __init__(self, tokens: range) -> None:
        api = library().api
        self._data = (api.llama_token_data * len(tokens))()
        fields = memoryview(self._data).cast("B")
        # struct llama_token_data: int32 id; float logit; float p
        self.ids, self.scores = fields.cast("i")[::3], fields.cast("f")[1::3]
        for at, token in enumerate(tokens):
            self.ids[at] = token
        self._array = api.llama_token_data_array(
            data=ctypes.cast(self._data, api.llama_token_data_p), size=len(tokens), selected=-1, sorted=False
        )
        self._address = ctypes.byref(self._array)
        self._apply = api.llama_sampler_apply

    def through(self, sampler: Any) -> None:
        """Leave minus infinity as the score of each token that the sampler refuses."""
        self._apply(sampler, self._address)


class GbnfState:
    """Holds one answer to a grammar.

    The best token is tried first, and all of the vocabulary only where the grammar refuses it: a check of one
    token costs microseconds, of a whole vocabulary milliseconds.
    """

    def __init__(self, one: _Candidates, every: _Candidates, sampler: Any) -> None:
        self._api = library().api
        self._sampler = sampler
        self._one, self._all = one, every
        self.seconds = 0.0

    def pick(self, session: Session, free: Sampler) -> int:
        """The best token that the grammar lets through. Raises GrammarInvalid if there is none."""
        token = free.pick(session)
        begun = time.perf_counter()
        if not self._allows(token):
            token = self._best(session)
        self._api.llama_sampler_accept(self._sampler, token)
        self.seconds += time.perf_counter() - begun
        return token

    def _allows(self, token: int) -> bool:
        self._one.ids[0], self._one.scores[0] = token, 0.0
        self._one.through(self._sampler)
        return bool(self._one.scores[0] != _REFUSED)

    def _best(self, session: Session) -> int:
        address = ctypes.cast(session.logits(), ctypes.c_void_p).value
        assert address is not None
        logits = (ctypes.c_float * len(self._all.scores)).from_address(address)
        self._all.scores[:] = memoryview(logits).cast("B").cast("f")
        self._all.through(self._sampler)
        scores = self._all.scores.tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        if not scores[best] > _REFUSED:
            # Accepting a token that the grammar refuses would end the process.
            raise GrammarInvalid("the grammar leaves no token to go on with", "use another model")
        return best

    def close(self) -> None:
        if self._sampler:
            self._api.llama_sampler_free(self._sampler)
            self._sampler = None
