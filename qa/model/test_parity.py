"""The shipped file answers as it did when it was made; with torch, also as the network it came from.

python -m pytest qa/model/test_parity.py            needs llama_cpp
PARITY_RUN=build/model python -m pytest …           and torch, gguf, tokenizers, and the training run
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clawos.inference.builtin import Request
from clawos.inference.builtin.labels import CallLabel, is_call
from clawos.inference.builtin.prompt import DIALECT
from clawos.inference.gguf import read_header
from qa.model.corpus import catalogue
from qa.model.freeze_parity import answer
from qa.model.paths import HERE, MODEL
from qa.model.shipped import Shipped

TABLE: list[dict[str, Any]] = json.loads((HERE / "parity.json").read_text())


@pytest.fixture(scope="module")
def model() -> Iterator[Shipped]:
    with Shipped() as made:
        yield made


@pytest.mark.parametrize("case", TABLE, ids=[case["text"] for case in TABLE])
def test_the_answer_is_the_stored_one(model: Shipped, case: dict[str, Any]) -> None:
    assert answer(model, case["text"], case.get("before", "")) == case


def test_the_first_question_of_all_gives_the_memory(model: Shipped) -> None:
    _, reply = model.answer("how much memory is free?", catalogue())
    assert [(call.tool, dict(call.arguments)) for call in reply.calls] == [("memory.usage", {})]


def test_the_file_says_what_it_speaks() -> None:
    assert read_header(MODEL).dialect == DIALECT


def test_the_file_is_within_its_size() -> None:
    assert MODEL.stat().st_size <= 16_000_000


def test_every_tool_of_the_catalogue_has_labels() -> None:
    labels = read_header(MODEL).metadata["clawos.labels"]
    known = {CallLabel.parse(label).tool for label in labels if is_call(label)}
    assert {tool.name for tool in catalogue()} <= known


@pytest.fixture(scope="module")
def run() -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("gguf")
    if "PARITY_RUN" not in os.environ:
        pytest.skip("PARITY_RUN does not name a training run")
    return Path(os.environ["PARITY_RUN"])


def test_llama_cpp_and_torch_compute_the_same(run: Path, tmp_path: Path) -> None:
    import torch

    from qa.model.export import load, write
    from qa.model.tokens import Encoder

    write(run, tmp_path / "f32.gguf", "f32")
    net, saved = load(run)
    ours = Encoder(saved["vocabulary"])
    with Shipped(tmp_path / "f32.gguf") as exact:
        for case in TABLE:
            text, before = case["text"].lower(), case.get("before", "").lower()
            ids, places = exact.tagger.tokens(Request(text, before))
            assert (ids, places) == ours.encode(text, before)
            theirs = torch.tensor(exact.tagger.encoder.read(ids, range(len(ids))))
            with torch.no_grad():
                mine = net.states(torch.tensor([ids]), torch.tensor([len(ids)]))[0]
            assert (mine - theirs).abs().max().item() < 2e-2
