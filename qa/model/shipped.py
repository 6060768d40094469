"""The shipped model, run by the code that runs it in the image."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from clawos.core.errors import ClawError
from clawos.inference.builtin import Reading, Reply, Request, ToolSpec, parse
from clawos.inference.builtin.prompt import TOKENS, plain
from clawos.inference.gguf import read_header
from clawos.inference.model import Model
from clawos.inference.tagger import Tagger
from qa.model.paths import MODEL


class Shipped:
    """One model file, ready to answer."""

    def __init__(self, path: Path = MODEL) -> None:
        """Raises ClawError."""
        header = read_header(path)
        self.model = Model(path, path.stem)
        self.tagger = Tagger(self.model, header.metadata, TOKENS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tagger.close()
        self.model.close()

    def read(self, request: Request) -> Reading:
        return self.tagger.read(request)

    def answer(self, text: str, tools: list[ToolSpec], before: str = "") -> tuple[Reading, Reply]:
        """What a request leads to, after an earlier one if there was one."""
        request = Request(plain(text))
        if before:
            _, reply = self.answer(before, tools)
            if reply.calls:
                request = Request(plain(text), plain(before), reply.calls)
        reading = self.read(request)
        return reading, parse(reading, request, tools)


__all__ = ["ClawError", "Shipped"]
