"""What a context keeps between requests must never show in an answer."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import pytest

from clawos.inference.model import Model
from clawos.inference.session import Session

CONTEXT = 128


def logits(session: Session) -> list[float]:
    values = ctypes.cast(session.logits(), ctypes.POINTER(ctypes.c_float))
    return values[: session.model.vocabulary]


def fresh(model: Model, tokens: Sequence[int]) -> list[float]:
    session = Session(model, CONTEXT, 1)
    try:
        session.read(tokens)
        return logits(session)
    finally:
        session.close()


def test_requests_that_begin_alike_do_not_leak_into_each_other(tiny: Path) -> None:
    model = Model(tiny, "tiny")
    session = Session(model, CONTEXT, 1)
    try:
        # shorter and longer ones in turn, so that what is kept is longer, shorter and equal to what is asked
        requests = [
            [1, 20, 30, 40, 50, 60, 70],
            [1, 20, 30, 41],
            [1, 20, 30, 40, 50, 61],
            [1, 20, 30, 41, 51, 61, 71, 81],
            [1, 20],
            [1, 20, 30, 40, 50, 60, 70],
        ]
        for tokens in requests:
            session.read(tokens)
            session.push(99)  # as an answer would
            session.read(tokens)
            assert session.seen == tokens
            assert logits(session) == pytest.approx(fresh(model, tokens), abs=0.05)
    finally:
        session.close()
        model.close()
