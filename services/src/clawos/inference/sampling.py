"""Choosing the next token, by llama.cpp's own samplers."""

from __future__ import annotations

from typing import Any

from clawos.inference.library import library
from clawos.inference.session import Session


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
