"""The corpus and the stream made of it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from clawos.inference.builtin import parse
from qa.model import requests
from qa.model.data import Stream, blank, catalogue, corpus, heldout_templates
from qa.model.paths import HERE

TOOLS = catalogue()


def test_every_tool_has_phrasings() -> None:
    lines = Counter(phrase.kind for phrase in corpus())
    assert {tool.name: lines[tool.name] for tool in TOOLS if lines[tool.name] < 40} == {}


def test_the_stream_repeats_itself() -> None:
    first, second = (list(islice(Stream(5, late=True), 300)) for _ in range(2))
    assert first == second
    assert first != list(islice(Stream(6, late=True), 300))


def test_no_held_out_request_is_ever_shown() -> None:
    held = heldout_templates()
    texts = [
        json.loads(line)["text"].lower()
        for path in (HERE / "eval").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    shown = {blank(example.text, []) for example in islice(Stream(7, late=True), 20_000)}
    assert shown.isdisjoint(held)
    assert shown.isdisjoint(blank(text, []) for text in texts)


def test_what_is_taught_passes_the_guard() -> None:
    """But for misspelt verbs, which the guard may refuse: the model learns what they mean all the same."""
    wanted = [example for example in islice(Stream(8), 4000) if example.calls]
    kept = [example for example in wanted if parse(example.target, example.text, TOOLS).kind == "calls"]
    assert len(kept) > 0.97 * len(wanted)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "an object"),
        ('{"text": "a"}', "id"),
        ('{"id": true, "text": "a"}', "id"),
        ('{"id": 1}', "text"),
    ],
)
def test_a_bad_line_of_requests_is_named(line: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(f'{{"id": 1, "text": "hello"}}\n{line}\n')
    with pytest.raises(requests.BadLine, match=rf"requests\.jsonl:2: .*{problem}"):
        list(requests.read(path))
