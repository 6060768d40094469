"""The training stream: a phrasing from the corpus, filled, framed and roughened, beside what the model
must write.
"""

from __future__ import annotations

import json
import math
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field

from clawos.inference.builtin import ToolSpec
from clawos.inference.builtin.dialect import TOPICS, token
from qa.model.paths import CATALOGUE, CORPUS, HERE
from qa.model.values import Values

CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
SLOT = re.compile(r"\{([a-z_]+)(\d?)(?::([a-z]+))?\}")


def read_frames() -> dict[str, list[str]]:
    """The sections of frames.txt; an underscore at an edge stands for a space."""
    frames: dict[str, list[str]] = {}
    for line in (CORPUS / "frames.txt").read_text().splitlines():
        if line.startswith("["):
            section = frames.setdefault(line[1:-1], [])
        elif not line.startswith("#"):
            section.append(line.replace("_", " "))
    return frames


FRAMES = read_frames()
IMPERATIVE = frozenset(FRAMES["imperative"][0].split())
QUESTION = frozenset(FRAMES["question"][0].split())
SYNONYMS = [line.split() for line in FRAMES["synonyms"]]
SYNONYM = {word: [other for other in group if other != word] for group in SYNONYMS for word in group}
NEIGHBOURS = dict(zip("abcdefghijklmnopqrstuvwxyz", "svxswdfguhjknbiowearyceztx", strict=True))
# How often each kind of example comes; calls of one tool share the rest.
SHARES = {
    "no": 0.23,
    "ask": 0.055,
    "talk": 0.04,
    "about": 0.04,
    "leave": 0.035,
    "multi": 0.075,
    "done": 0.004,
}


# Lines of late-*.txt come this many times more often than their number says.
LATE_WEIGHT = 2.5


@dataclass(frozen=True)
class Phrase:
    """One line of the corpus: its template and what it leads to, both with slots."""

    kind: str
    template: str
    target: tuple[tuple[str, dict[str, str]], ...] = ()
    fixed: bool = False
    late: bool = False

    @property
    def weight(self) -> float:
        choices = 1
        for match in CHOICE.finditer(self.template):
            choices *= match[1].count("|") + 1
        return math.sqrt(min(choices, 24)) * (LATE_WEIGHT if self.late else 1)


@dataclass(frozen=True)
class Example:
    text: str
    target: str
    kind: str
    calls: tuple[tuple[str, dict[str, str]], ...] = field(default=(), hash=False)


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


def corpus(*, late: bool = False) -> list[Phrase]:
    """Every line of corpus/*.txt, those of late-*.txt only for the last part of training."""
    phrases: list[Phrase] = []
    properties = {tool.name: tool.properties for tool in catalogue()}
    for path in sorted(CORPUS.glob("*.txt")):
        if path.name in ("words.txt", "values.txt", "frames.txt"):
            continue
        last = path.name.startswith("late-")
        if last and not late:
            continue
        head: list[str] = []
        for line in path.read_text().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith("[") and line.endswith("]"):
                head = line[1:-1].split()
                continue
            fixed = line.startswith("=")
            line = line.removeprefix("=").strip()
            if path.name == "multi.txt":
                text, calls = line.split(" => ")
                phrases.append(
                    Phrase("multi", text, tuple(_call(call.split()) for call in calls.split("; ")))
                )
            elif head[0] in ("no", "leave"):
                phrases.append(Phrase(head[0], line, (), fixed, last))
            elif head[0] in ("ask", "talk", "about"):
                phrases.append(Phrase(head[0], line, tuple((word, {}) for word in head[1:]), fixed, last))
            else:
                tool, arguments = _call(head)
                slots = {
                    match[1]: f"{{{match[1]}}}"
                    for match in SLOT.finditer(line)
                    if match[1] in properties[tool]
                }
                phrases.append(Phrase(tool, line, ((tool, slots | arguments),), fixed))
    return phrases


def _call(words: list[str]) -> tuple[str, dict[str, str]]:
    """`unit.restart unit` or `journal.show unit={unit2} priority=error`; a bare word stands for the slot
    of that name.
    """
    arguments = {}
    for word in words[1:]:
        key, eq, value = word.partition("=")
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
    for value in sorted(values, key=len, reverse=True):
        if value:
            text = re.sub(rf"(?<!\w){re.escape(value.lower())}(?!\w)", " § ", text)
    return " ".join(re.sub(r"[^\w§ ]+", " ", text).split())


class Stream:
    """Endless examples from one seed."""

    def __init__(self, seed: int, *, late: bool = False) -> None:
        self.rng = random.Random(seed)
        self.values = Values(self.rng)
        self.order = {tool.name: list(tool.properties) for tool in catalogue()}
        self.verbs = {tool.name for tool in catalogue() if tool.verbs}
        self.heldout = heldout_templates()
        self.dropped = 0
        self.by_kind: dict[str, list[Phrase]] = {}
        for phrase in corpus(late=late):
            self.by_kind.setdefault(phrase.kind, []).append(phrase)
        self.weights = {kind: [phrase.weight for phrase in phrases] for kind, phrases in self.by_kind.items()}
        self.tools = sorted(kind for kind in self.by_kind if kind in self.order)
        missing = sorted(set(self.order) - set(self.tools))
        if missing:
            raise SystemExit(f"corpus: no phrasings for {', '.join(missing)}")
        self.tool_weights = [sum(self.weights[tool]) ** 0.5 for tool in self.tools]

    def __iter__(self) -> Iterator[Example]:
        while True:
            example = self.one()
            if example is not None:
                yield example

    def one(self) -> Example | None:
        rng = self.rng
        kind = self.kind()
        if kind == "call":
            return self.call(self.pick(rng.choices(self.tools, self.tool_weights)[0]))
        if kind == "multi":
            return self.call(self.pick("multi")) if rng.random() < 0.4 else self.joined()
        if kind == "done":
            base = self.call(self.pick(rng.choice(self.tools)))
            return base and Example(base.text, "⟨done⟩", "done")
        if kind == "leave":
            return self.plain(self.pick("leave"), "⟨leave⟩") if rng.random() < 0.3 else self.negated()
        phrase = self.pick(kind)
        if kind == "no":
            return self.plain(phrase, "⟨no⟩")
        if kind == "talk":
            topic = phrase.target[0][0]
            assert topic in TOPICS, topic
            return self.plain(phrase, f"⟨talk⟩ {topic}")
        tool, *slots = (word for word, _ in phrase.target)
        if (
            kind == "ask"
            and tool in ("unit.restart", "unit.start", "unit.stop", "unit.status")
            and rng.random() < 0.12
        ):
            return self.answered(phrase, tool, "unit")
        if (
            kind == "ask"
            and tool in ("file.delete", "file.read", "process.find", "file.find")
            and rng.random() < 0.12
        ):
            return self.answered(phrase, tool, slots[0])
        head = "⟨ask⟩" if kind == "ask" else "⟨about⟩"
        return self.plain(phrase, head + token(tool) + "".join(token(slot) for slot in slots))

    def kind(self) -> str:
        draw = self.rng.random()
        for kind, share in SHARES.items():
            draw -= share
            if draw < 0:
                return kind
        return "call"

    def pick(self, kind: str) -> Phrase:
        return self.rng.choices(self.by_kind[kind], self.weights[kind])[0]

    # One phrase to one example.

    def call(self, phrase: Phrase, *, frame: bool = True) -> Example | None:
        filled = self.fill(self.expand(phrase.template), fixed=phrase.fixed)
        if filled is None:
            return None
        text, bound = filled
        target, calls = self.render(phrase, bound)
        text = text if phrase.fixed or not frame else self.framed(text)
        return self.finish(text, target, phrase.kind, calls)

    def plain(self, phrase: Phrase, target: str) -> Example | None:
        filled = self.fill(self.expand(phrase.template), fixed=phrase.fixed)
        if filled is None:
            return None
        frame = phrase.kind in ("no", "ask", "about") and not phrase.fixed
        return self.finish(self.framed(filled[0]) if frame else filled[0], target, phrase.kind, ())

    def answered(self, phrase: Phrase, tool: str, key: str) -> Example | None:
        """The request that missed a value, joined to the answer that gives it."""
        filled = self.fill(self.expand(phrase.template), fixed=False)
        if filled is None or "{" in phrase.template:
            return None
        kind = {"unit": "unit", "path": "path", "name": "proc" if tool == "process.find" else "file"}[key]
        said, target = self.values.of(kind, key)
        lead = self.rng.choice(["", "", "", "the ", "it is ", "i mean ", "please "])
        return self.finish(f"{filled[0]}: {lead}{said}", token(tool) + token(key) + target, "ask", ())

    def negated(self) -> Example | None:
        rng = self.rng
        tool = rng.choice(sorted(self.verbs)) if rng.random() < 0.85 else rng.choice(self.tools)
        for _ in range(40):
            phrase = self.pick(tool)
            template = self.expand(phrase.template)
            if not phrase.fixed and template.split()[0] in IMPERATIVE:
                filled = self.fill(template, fixed=False)
                return filled and self.finish(rng.choice(FRAMES["not"]) + filled[0], "⟨leave⟩", "leave", ())
        return None

    def joined(self) -> Example | None:
        rng = self.rng
        first, second = (self.pick(rng.choices(self.tools, self.tool_weights)[0]) for _ in range(2))
        loose = ("shell.run", "file.write", "math.eval")
        if first.kind == second.kind or first.kind in loose or first.fixed or second.fixed:
            return None
        templates = [self.expand(first.template), self.expand(second.template)]
        imperative = [template.split()[0] in IMPERATIVE for template in templates]
        question = [template.split()[0] in QUESTION for template in templates]
        natural = (
            (imperative[0] and not question[1])
            or all(question)
            or (not any(imperative) and not any(question))
        )
        if not natural and rng.random() < 0.7:
            return None
        parts: list[str] = []
        targets: list[str] = []
        calls: list[tuple[str, dict[str, str]]] = []
        for phrase, template in zip((first, second), templates, strict=True):
            filled = self.fill(template, fixed=False)
            if filled is None:
                return None
            target, made = self.render(phrase, filled[1])
            parts.append(filled[0])
            targets.append(target)
            calls += made
        join = rng.choice(FRAMES["join_things"] if not any(imperative) else FRAMES["join"])
        return self.finish(self.framed(join.join(parts)), "".join(targets), "multi", tuple(calls))

    def render(
        self, phrase: Phrase, bound: dict[str, tuple[str, str]]
    ) -> tuple[str, tuple[tuple[str, dict[str, str]], ...]]:
        out, calls = [], []
        for tool, arguments in phrase.target:
            out.append(token(tool))
            made = {}
            for key in self.order[tool]:
                if key not in arguments:
                    continue
                value = arguments[key]
                target = bound[value[1:-1]][1] if value.startswith("{") else f" {value}" if value else ""
                out.append(token(key) + target)
                made[key] = target
            calls.append((tool, made))
        return "".join(out), tuple(calls)

    # Words.

    def expand(self, template: str) -> str:
        while match := CHOICE.search(template):
            choice = self.rng.choice(match[1].split("|"))
            template = template[: match.start()] + choice + template[match.end() :]
        return re.sub(r" +('s\b|,|:)", r"\1", " ".join(template.split()))

    def fill(self, template: str, *, fixed: bool) -> tuple[str, dict[str, tuple[str, str]]] | None:
        if blank(SLOT.sub("§", template), []) in self.heldout:
            self.dropped += 1
            return None
        bound: dict[str, tuple[str, str]] = {}
        out, at = [], 0
        for match in SLOT.finditer(template):
            out.append(self.roughen(template[at : match.start()], fixed))
            key = match[1] + match[2]
            if key not in bound or key == "_" or match[1] in self.values.lists or match[1] == "junk":
                bound[key] = self.values.of(match[3] or match[1], match[1])
            out.append(bound[key][0])
            at = match.end()
        out.append(self.roughen(template[at:], fixed))
        return "".join(out), bound

    def roughen(self, text: str, fixed: bool) -> str:
        rng = self.rng
        if fixed or not text.strip():
            return text
        words = text.split(" ")
        for i, word in enumerate(words):
            if word in SYNONYM and rng.random() < 0.12:
                words[i] = rng.choice(SYNONYM[word])
            elif word in ("the", "a", "an", "my", "is", "me") and len(words) > 2 and rng.random() < 0.05:
                words[i] = ""
            elif len(word) >= 4 and word.isalpha() and rng.random() < 0.025:
                words[i] = self.typo(word)
        lead, tail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
        return lead + " ".join(word for word in words if word) + tail

    def typo(self, word: str) -> str:
        rng = self.rng
        at = rng.randrange(1, len(word) - 1)
        shape = rng.random()
        if shape < 0.35:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        if shape < 0.65:
            return word[:at] + word[at + 1 :]
        if shape < 0.85:
            return word[:at] + NEIGHBOURS.get(word[at], word[at]) + word[at + 1 :]
        return word[:at] + word[at] + word[at:]

    def framed(self, text: str) -> str:
        rng = self.rng
        first = text.split()[0] if text.split() else ""
        imperative, question = first in IMPERATIVE, first in QUESTION
        before, after = (
            (FRAMES["before_imperative"], FRAMES["after_imperative"]) if imperative
            else (FRAMES["before_question"], FRAMES["after_question"]) if question
            else (FRAMES["before_thing"], FRAMES["after_thing"])
        )  # fmt: skip
        lead = rng.choice(before) if rng.random() < 0.38 else ""
        if (
            not imperative
            and not question
            and re.search(r"\b(is|are|i|my|we|needs?|must|should|does|has)\b", text)
        ):
            lead = (
                rng.choice(["", "hey, ", "hi, ", "please, ", "so ", "ok, ", "sorry, ", "well, ", "look, "])
                if lead
                else ""
            )
        text = lead + text
        if rng.random() < 0.2:
            text += rng.choice(after)
        return text

    def finish(
        self, text: str, target: str, kind: str, calls: tuple[tuple[str, dict[str, str]], ...]
    ) -> Example | None:
        rng = self.rng
        text = text.lower().strip()
        if rng.random() < 0.3:
            text = (
                text.replace("don't", "dont")
                .replace("what's", "whats")
                .replace("i'd", "id")
                .replace("let's", "lets")
            )
        asks = text.split(" ")[0] in QUESTION or text.startswith(("can you", "could you", "would you"))
        if not text.endswith(("?", "!", ".")) and not (calls and calls[-1][0] == "shell.run"):
            draw = rng.random()
            mark = (
                ("?" if draw < 0.45 else "")
                if asks
                else ("." if draw < 0.1 else "!" if draw < 0.13 else "?" if draw < 0.16 else "")
            )
            text += mark
        text = " ".join(text.split())
        if not text or blank(text, []) in self.heldout:
            self.dropped += 1
            return None
        return Example(text, target, kind, calls)
