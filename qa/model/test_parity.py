"""The shipped file answers as it did when it was made; with torch, also as the network it came from.

python -m pytest qa/model/test_parity.py            needs llama_cpp
PARITY_RUN=build/model python -m pytest …           and torch, gguf, tokenizers, and the training run
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawos.inference.builtin import DIALECT, MAX_TOKENS, grammar, parse, prompt
from qa.model.data import catalogue
from qa.model.decode import LibraryMissing, Model
from qa.model.paths import HERE, MODEL

TABLE = json.loads((HERE / "parity.json").read_text())
RULES = grammar(catalogue())


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    try:
        made = Model(MODEL)
    except LibraryMissing as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.mark.parametrize("case", TABLE, ids=[case["text"] for case in TABLE])
def test_the_answer_is_the_stored_one(model: Model, case: dict[str, str]) -> None:
    asked = prompt([{"role": "user", "content": case["text"]}])
    assert model.complete(asked, RULES, MAX_TOKENS) == case["output"]


def test_without_a_grammar_it_writes_the_same(model: Model) -> None:
    """The grammar is a fence: the model was trained to stay inside by itself."""
    asked = [prompt([{"role": "user", "content": case["text"]}]) for case in TABLE]
    assert [model.complete(text, None, MAX_TOKENS) for text in asked] == [case["output"] for case in TABLE]


def test_the_first_question_of_all_gives_the_memory(model: Model) -> None:
    text = "how much memory is free?"
    reply = parse(
        model.complete(prompt([{"role": "user", "content": text}]), RULES, MAX_TOKENS), text, catalogue()
    )
    assert [(call.tool, dict(call.arguments)) for call in reply.calls] == [("memory.usage", {})]


def test_once_the_results_are_there_it_stops(model: Model) -> None:
    messages = [{"role": "user", "content": "how much memory is free?"}, {"role": "tool", "content": "3 GB"}]
    assert model.complete(prompt(messages), RULES, MAX_TOKENS) == ""


def test_the_file_says_what_it_speaks(model: Model) -> None:
    assert model.metadata("clawos.dialect") == DIALECT


def test_every_tool_of_the_catalogue_is_one_token(model: Model) -> None:
    assert {tool.name: len(model.tokenize(f"⟨{tool.name}⟩")) for tool in catalogue()} == {
        tool.name: 1 for tool in catalogue()
    }


def test_a_bad_grammar_is_an_error_and_no_crash(model: Model) -> None:
    with pytest.raises(ValueError, match="grammar"):
        model.complete("⟨user⟩ hello⟨act⟩", "root ::= (", MAX_TOKENS)


@pytest.fixture(scope="module")
def run() -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("gguf")
    if "PARITY_RUN" not in os.environ:
        pytest.skip("PARITY_RUN does not name a training run")
    return Path(os.environ["PARITY_RUN"])


def test_llama_cpp_and_torch_compute_the_same(run: Path, tmp_path: Path) -> None:
    import torch
    from tokenizers import Tokenizer

    from qa.model.export import load, write

    write(run, tmp_path / "f32.gguf", "f32")
    net, _ = load(run)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    with Model(tmp_path / "f32.gguf") as exact:
        for case in TABLE:
            text = prompt([{"role": "user", "content": case["text"]}])
            ids = exact.tokenize(text)
            assert ids == tokenizer.encode(text).ids
            exact.clear()
            theirs = torch.tensor(exact.scores(ids)[: exact.tokens])
            with torch.no_grad():
                ours = net(torch.tensor([ids]))[0, -1]
            assert (ours - theirs).abs().max().item() < 2e-2
