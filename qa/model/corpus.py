"""The corpus: what people wrote, line by line, with slots for the values. docs/model.md tells its format."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clawos.inference.builtin import ToolSpec
from qa.model.paths import CATALOGUE, CORPUS, HERE

CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
SLOT = re.compile(r"\{([a-z_]+)(\d?)(?::([a-z]+))?\}")
NOT_PHRASES = ("words.txt", "values.txt", "frames.txt")

Target = tuple[tuple[str, dict[str, str]], ...]


@dataclass(frozen=True)
class Phrase:
    """One line of the corpus: its template and what it leads to, both with slots."""

    kind: str
    template: str
    target: Target = ()
    fixed: bool = False
    before: str = ""

    @property
    def weight(self) -> float:
        choices = 1
        for match in CHOICE.finditer(self.template):
            choices *= match[1].count("|") + 1
        return math.sqrt(min(choices, 24))


def catalogue() -> list[ToolSpec]:
    """The tools of policies/tools, in the order of their names."""
    tools = []
    for path in sorted(CATALOGUE.glob("*.toml")):
        manifest = tomllib.loads(path.read_text())
        tools.append(
            ToolSpec.from_json(
                {
                    "name": manifest["name"],
                    "description": manifest["description"],
                    "parameters": manifest["arguments"],
                    "verbs": manifest.get("verbs", []),
                }
            )
        )
    return tools


def corpus() -> list[Phrase]:
    """Every line of corpus/*.txt that is about a tool of the catalogue, or about none."""
    tools = {tool.name: tool for tool in catalogue()}
    phrases: list[Phrase] = []
    for path in sorted(CORPUS.glob("*.txt")):
        if path.name not in NOT_PHRASES:
            phrases += _file(path, tools)
    return phrases


def _file(path: Path, tools: dict[str, ToolSpec]) -> Iterator[Phrase]:
    head: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            head = line[1:-1].split()
            continue
        try:
            phrase = _phrase(head, line, tools)
        except (KeyError, ValueError, IndexError) as error:
            raise SystemExit(f"{path}:{number}: {error!r}: {line}") from error
        if phrase:
            yield phrase


def _phrase(head: list[str], line: str, tools: dict[str, ToolSpec]) -> Phrase | None:
    """One line below the heading `head`; None where it is about a tool that is not in the catalogue."""
    fixed = line.startswith("=")
    line = line.removeprefix("=").strip()
    before = ""
    if head[0] in ("several", "follow", "fresh"):
        text, calls = line.split(" => ")
        if head[0] != "several":
            before, text = text.split(" >> ")
        target = tuple(_call(call.split()) for call in calls.split("; "))
        kind = "multi" if head[0] == "several" else head[0]
        known = all(tool in tools for tool, _ in target)
        return Phrase(kind, text.strip(), target, fixed, before.strip()) if known else None
    named = [word for word in head if "." in word.partition("=")[0]]
    if any(name not in tools for name in named):
        return None
    if head[0] in ("no", "leave", "condition"):
        return Phrase(head[0], line, (), fixed)
    if head[0] in ("ask", "talk", "about"):
        return Phrase(head[0], line, tuple((word, {}) for word in head[1:]), fixed)
    tool, arguments = _call(head)
    slots = {
        match[1]: f"{{{match[1]}}}" for match in SLOT.finditer(line) if match[1] in tools[tool].properties
    }
    return Phrase(tool, line, ((tool, slots | arguments),), fixed)


def _call(words: list[str]) -> tuple[str, dict[str, str]]:
    """`unit.restart unit` or `journal.show unit={unit2} ^lines priority=error`.

    A bare word stands for the slot of that name, `^word` for the value of the call before.
    """
    arguments = {}
    for word in words[1:]:
        key, eq, value = word.partition("=")
        if key.startswith("^"):
            arguments[key[1:]] = "^"
        else:
            arguments[key] = value if eq else f"{{{key}}}"
    return words[0], arguments


def heldout_templates() -> frozenset[str]:
    """What training must not show: the held-out requests, with their values blanked."""
    found = set()
    for path in sorted((HERE / "eval").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            item = json.loads(line)
            text = item["text"].lower()
            found.add(blank(text, []))
            found.add(blank(text, [str(v) for call in item.get("calls", []) for v in call["args"].values()]))
    return frozenset(found)


def blank(text: str, values: list[str]) -> str:
    """A text in lower case with § for its values and without punctuation, for comparing phrasings."""
    for value in sorted(values, key=len, reverse=True):
        if value:
            text = re.sub(rf"(?<!\w){re.escape(value.lower())}(?!\w)", " § ", text)
    return " ".join(re.sub(r"[^\w§ ]+", " ", text).split())
