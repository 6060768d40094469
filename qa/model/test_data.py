"""The corpus and the stream made of it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from clawos.inference.builtin import Request, parse
from clawos.inference.builtin.labels import NO, NONE, CallLabel, is_call
from clawos.inference.builtin.split import words
from qa.model import corrections, requests
from qa.model.corpus import blank, catalogue, corpus, heldout_templates
from qa.model.data import Stream
from qa.model.noise import gerund, past
from qa.model.paths import HERE

TOOLS = catalogue()


def test_every_tool_has_phrasings() -> None:
    lines = Counter(phrase.kind for phrase in corpus())
    assert {tool.name: lines[tool.name] for tool in TOOLS if lines[tool.name] < 100} == {}


def test_the_stream_repeats_itself() -> None:
    first, second = (list(islice(Stream(5), 300)) for _ in range(2))
    assert first == second
    assert first != list(islice(Stream(6), 300))


def test_no_held_out_request_is_ever_shown() -> None:
    held = heldout_templates()
    texts = [
        json.loads(line)["text"].lower()
        for path in (HERE / "eval").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    shown = {blank(example.text, []) for example in islice(Stream(7), 20_000)}
    assert shown.isdisjoint(held)
    assert shown.isdisjoint(blank(text, []) for text in texts)


def test_what_is_taught_passes_the_guard() -> None:
    """But for misspelt verbs, which the guard may refuse: the model learns what they mean all the same."""
    kinds = {tool.name for tool in TOOLS}
    wanted = [example for example in islice(Stream(8), 4000) if example.kind in kinds]
    kept = [e for e in wanted if parse(e.reading, Request(e.text), TOOLS).kind == "calls"]
    assert len(kept) > 0.95 * len(wanted)


def test_values_begin_and_end_with_words() -> None:
    """Else the tags of the words could not say where a value is; -n20 and /etc/init.d/cron are cut later."""
    found = cut = 0
    for example in islice(Stream(9), 4000):
        places = words(example.text)
        for span in example.reading.spans:
            found += 1
            starts, ends = {word.start for word in places}, {word.end for word in places}
            cut += span.start not in starts or span.end not in ends
    assert found > 1000
    assert cut < 0.005 * found


def test_labels_name_tools_and_their_arguments() -> None:
    properties = {tool.name: set(tool.properties) for tool in TOOLS}
    for example in islice(Stream(10), 8000):
        first, *others = example.reading.labels
        assert NONE not in example.reading.labels
        assert not others or (is_call(first) and all(is_call(label) for label in others))
        for label in filter(is_call, example.reading.labels):
            parsed = CallLabel.parse(label)
            assert {*parsed.fixed, *parsed.spoken, *parsed.inherited} <= properties[parsed.tool], label
        if first == NO:
            assert example.reading.spans == ()


def test_corrections_become_phrases(tmp_path: Path) -> None:
    path = tmp_path / "corrections.jsonl"
    lines: list[tuple[str, list[tuple[str, dict[str, str]]]]] = [
        ("bounce the web server nginx", [("unit.restart", {"unit": "nginx"})]),
        ("errors of sshd please", [("journal.show", {"unit": "sshd", "priority": "error"})]),
        ("bounce the web server", [("unit.restart", {"unit": "nginx"})]),
        ("no such tool", [("no.tool", {})]),
        ("stop a and b", [("unit.stop", {"unit": "a"}), ("unit.stop", {"unit": "b"})]),
    ]
    path.write_text(
        "".join(
            json.dumps({"text": text, "calls": [{"tool": t, "args": a} for t, a in calls], "was": []}) + "\n"
            for text, calls in lines
        )
    )
    phrases = corrections.read(path, {tool.name: tool for tool in TOOLS})
    assert [(phrase.kind, phrase.template) for phrase in phrases] == [
        ("unit.restart", "bounce the web server {unit}"),
        ("journal.show", "errors of {unit} please"),
        ("multi", "stop {unit} and {unit2}"),
    ]
    assert phrases[1].target == (("journal.show", {"unit": "{unit}", "priority": "error"}),)
    texts = {example.text for example in islice(Stream(3, more=phrases * 50), 2000)}
    assert any("web server" in text for text in texts)


@pytest.mark.parametrize(
    ("verb", "then", "now"),
    [
        ("restart", "restarted", "restarting"),
        ("stop", "stopped", "stopping"),
        ("delete", "deleted", "deleting"),
        ("copy", "copied", "copying"),
        ("shut", "shut", "shutting"),
        ("run", "ran", "running"),
    ],
)
def test_forms_of_verbs(verb: str, then: str, now: str) -> None:
    assert (past(verb), gerund(verb)) == (then, now)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "an object"),
        ('{"text": "a"}', "id"),
        ('{"id": true, "text": "a"}', "id"),
        ('{"id": 1}', "text"),
        ('{"id": 1, "text": "a", "before": 3}', "before"),
    ],
)
def test_a_bad_line_of_requests_is_named(line: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(f'{{"id": 1, "text": "hello"}}\n{line}\n')
    with pytest.raises(requests.BadLine, match=rf"requests\.jsonl:2: .*{problem}"):
        list(requests.read(path))
