"""The built-in model at work: from a request to the labels and values that it finds in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clawos.inference.builtin.labels import CALLS, OUTSIDE, decide
from clawos.inference.builtin.prompt import BEFORE_TOKENS, CALL2, CALL3, CLS, SEP
from clawos.inference.builtin.reading import Reading, Request, spans
from clawos.inference.builtin.split import words
from clawos.inference.encoder import Encoder
from clawos.inference.errors import ModelInvalid
from clawos.inference.model import Model


@dataclass(frozen=True)
class Head:
    """A linear layer on one state: the names it tells apart, and for each its weights and its bias."""

    names: tuple[str, ...]
    rows: tuple[tuple[list[float], float], ...]

    @classmethod
    def parse(cls, metadata: Mapping[str, Any], names_key: str, rows_key: str, width: int) -> Head:
        """Read it from a GGUF's metadata. Raises ModelInvalid."""
        names, numbers = metadata.get(names_key), metadata.get(rows_key)
        sound = (
            isinstance(names, list)
            and isinstance(numbers, list)
            and names
            and all(isinstance(name, str) for name in names)
            and len(numbers) == len(names) * (width + 1)
            and all(isinstance(number, float) and math.isfinite(number) for number in numbers)
        )
        if not sound:
            raise ModelInvalid(f"its {rows_key} does not fit its {names_key}", "use another model")
        assert isinstance(names, list)
        assert isinstance(numbers, list)
        starts = range(0, len(numbers), width + 1)
        rows = tuple((numbers[at : at + width], numbers[at + width]) for at in starts)
        return cls(tuple(names), rows)

    def best(self, state: Sequence[float]) -> str:
        """The name with the highest score."""
        scores = self._scores(state)
        return self.names[scores.index(max(scores))]

    def shares(self, state: Sequence[float]) -> dict[str, float]:
        """The share of the probability (softmax) that each name has."""
        scores = self._scores(state)
        highest = max(scores)
        powers = [math.exp(score - highest) for score in scores]
        whole = math.fsum(powers)
        return {name: power / whole for name, power in zip(self.names, powers, strict=True)}

    def _scores(self, state: Sequence[float]) -> list[float]:
        # Exactly rounded, so that every processor chooses the same from the same state.
        return [math.sumprod(weights, state) + bias for weights, bias in self.rows]


class Tagger:
    """Not for two threads at once."""

    def __init__(self, model: Model, metadata: Mapping[str, Any], tokens: int) -> None:
        """Raises ModelInvalid where the file lacks what a tagger needs."""
        self.model = model
        self.encoder = Encoder(model, tokens)
        try:
            width = self.encoder.width
            self._calls = Head.parse(metadata, "clawos.labels", "clawos.head.calls", width)
            self._tags = Head.parse(metadata, "clawos.tags", "clawos.head.tags", width)
            self._lead = [self._special(name) for name in (CLS, CALL2, CALL3)]
            self._end = self._special(SEP)
        except ModelInvalid:
            self.encoder.close()
            raise

    def _special(self, name: str) -> int:
        token = self.model.one_token(name)
        if token is None:
            raise ModelInvalid(f"its vocabulary lacks {name}", "use another model")
        return token

    def close(self) -> None:
        self.encoder.close()

    def tokens(self, request: Request) -> tuple[list[int], list[int]]:
        """What the encoder reads, and for each word of the request the place of its first token.

        -1 is the place of a word that was cut, or that is made of nothing the vocabulary can spell.
        """
        room = self.encoder.context_tokens - 1
        ids, places = list(self._lead), []
        for start, end in words(request.text):
            pieces = self._pieces(request.text[start:end])
            places.append(len(ids) if pieces and len(ids) + len(pieces) <= room else -1)
            ids += pieces
        ids = [*ids[:room], self._end]
        before = self._pieces(request.before)[:BEFORE_TOKENS] if request.before else []
        if before and len(ids) + len(before) < self.encoder.context_tokens:
            ids += [*before, self._end]
        return ids, places

    def _pieces(self, text: str) -> list[int]:
        return self.model.tokenize(text.lower(), special=False, add_bos=False)

    def read(self, request: Request) -> Reading:
        """The labels and values of a request. Raises Cancelled, ModelInvalid."""
        ids, places = self.tokens(request)
        known = [place for place in places if place >= 0]
        states = self.encoder.read(ids, [*range(CALLS), *known])
        labels, certainty = decide([self._calls.shares(state) for state in states[:CALLS]])
        tagged = dict(zip(known, states[CALLS:], strict=True))
        tags = [self._tags.best(tagged[place]) if place in tagged else OUTSIDE for place in places]
        return Reading(labels, spans(words(request.text), tags), certainty)
