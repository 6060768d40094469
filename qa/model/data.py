"""The training stream: a phrasing from the corpus, filled, framed and roughened, beside what the model must
make of it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from clawos.inference.builtin import ToolSpec
from clawos.inference.builtin.labels import ABOUT, CALLS, LEAVE, NO, TALK, TOPICS, WHEN, call_label
from clawos.inference.builtin.reading import Reading, Span
from qa.model.corpus import CHOICE, SLOT, Phrase, Target, blank, catalogue, corpus, heldout_templates
from qa.model.noise import FRAMES, IMPERATIVE, QUESTION, Noise, gerund, past
from qa.model.values import Value, Values

# How often each kind of example comes; calls of one tool share the rest.
SHARES = {
    "no": 0.22,
    "ask": 0.05,
    "talk": 0.03,
    "about": 0.035,
    "leave": 0.045,
    "condition": 0.035,
    "multi": 0.1,
    "follow": 0.11,
}
# Of the other examples, how many come with a request before them that has nothing to do with them.
UNRELATED = 0.2
# Arguments that "it" can stand for.
REFERRED = ("unit", "path", "name")
# Characters of no alphabet that stand around a value until its place is known.
_OPEN, _CLOSE = 0xE000, "\uf8ff"
_MARKED = re.compile("([\ue000-\ue0ff])([^\uf8ff]*)\uf8ff")

Bound = set[str]
"""The slots of a template that its text holds."""


@dataclass(frozen=True)
class Example:
    """A request, the one before it if it has any, and what the model must make of it."""

    text: str
    kind: str
    reading: Reading
    before: str = ""


class Stream:
    """Endless examples from one seed."""

    def __init__(self, seed: int, *, misspelt: bool = True, more: Sequence[Phrase] = ()) -> None:
        self.rng = random.Random(seed)
        self.values = Values(self.rng)
        self.noise = Noise(self.rng, misspelt=misspelt)
        self.specs: dict[str, ToolSpec] = {tool.name: tool for tool in catalogue()}
        self.heldout = heldout_templates()
        self.dropped = 0
        self.by_kind: dict[str, list[Phrase]] = {}
        for phrase in (*corpus(), *more):
            self.by_kind.setdefault(phrase.kind, []).append(phrase)
        self.weights = {kind: [phrase.weight for phrase in phrases] for kind, phrases in self.by_kind.items()}
        self.tools = sorted(kind for kind in self.by_kind if kind in self.specs)
        missing = sorted(set(self.specs) - set(self.tools))
        if missing:
            raise SystemExit(f"corpus: no phrasings for {', '.join(missing)}")
        self.tool_weights = [sum(self.weights[tool]) ** 0.5 for tool in self.tools]
        self.effects = [tool for tool in self.tools if self.specs[tool].verbs]
        self.plain_tools = [tool for tool in self.tools if not self.specs[tool].properties]

    def __iter__(self) -> Iterator[Example]:
        while True:
            example = self.one()
            if example is not None:
                yield example

    def one(self) -> Example | None:
        rng = self.rng
        kind = self.kind()
        if kind == "follow":
            return self.follow()
        example = self.without_context(kind)
        if example is None or rng.random() > UNRELATED:
            return example
        # A request that misses a value would take it from the one before.
        tools = self.plain_tools if kind == "ask" else self.tools
        before = self.fill(self.expand(self.pick(rng.choice(tools)).template), fixed=True)
        return before and replace(example, before=_unmarked(before[0])[0])

    def without_context(self, kind: str) -> Example | None:
        rng = self.rng
        if kind == "call":
            return self.call(self.pick(rng.choices(self.tools, self.tool_weights)[0]))
        if kind == "multi":
            return self.call(self.pick("multi")) if rng.random() < 0.5 else self.joined()
        if kind == "leave" and rng.random() < 0.5:
            return self.negated()
        if kind == "condition" and rng.random() < 0.5:
            return self.conditioned()
        phrase = self.pick(kind)
        if kind == "no":
            return self.plain(phrase, NO)
        if kind == "leave":
            return self.plain(phrase, LEAVE)
        if kind == "condition":
            return self.plain(phrase, WHEN)
        if kind == "talk":
            topic = phrase.target[0][0]
            assert topic in TOPICS, topic
            return self.plain(phrase, TALK + topic)
        if kind == "about":
            return self.plain(phrase, ABOUT + phrase.target[0][0])
        return self.asked(phrase)

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

    def call(self, phrase: Phrase, *, before: str = "") -> Example | None:
        filled = self.fill(self.expand(phrase.template), fixed=phrase.fixed)
        if filled is None:
            return None
        text = filled[0] if phrase.fixed or before else self.noise.framed(filled[0])
        whole = phrase.target[-1][0] in ("shell.run", "python.run")
        return self.finish(text, self.labels(phrase.target, filled[1]), phrase.kind, before, whole=whole)

    def plain(self, phrase: Phrase, label: str, *, before: str = "") -> Example | None:
        filled = self.fill(self.expand(phrase.template), fixed=phrase.fixed)
        if filled is None:
            return None
        framed = phrase.kind in ("no", "ask", "about") and not phrase.fixed and not before
        text = self.noise.framed(filled[0]) if framed else filled[0]
        return self.finish(text, (label,), phrase.kind, before)

    def asked(self, phrase: Phrase) -> Example | None:
        """A request that misses a value, alone or joined to the answer that gives it."""
        (tool, _), *slots = phrase.target
        key = slots[0][0] if slots else self.specs[tool].required[0]
        kinds = {"unit": "unit", "path": "path", "name": "proc" if tool == "process.find" else "file"}
        if key in kinds and "{" not in phrase.template and self.rng.random() < 0.15:
            filled = self.fill(self.expand(phrase.template), fixed=False)
            lead = self.rng.choice(["", "", "", "the ", "it is ", "i mean ", "please "])
            said = _marked(self.values.of(kinds[key], key), key)
            bound = {key}
            return filled and self.finish(
                f"{filled[0]}: {lead}{said}", self.labels(((tool, {key: f"{{{key}}}"}),), bound), "ask", ""
            )
        optional = key not in self.specs[tool].required
        return self.plain(phrase, call_label(self.specs[tool], {}, (), (key,) if optional else ()))

    def negated(self) -> Example | None:
        rng = self.rng
        tool = rng.choice(self.effects if rng.random() < 0.85 else self.tools)
        for _ in range(40):
            phrase = self.pick(tool)
            template = self.expand(phrase.template)
            if not phrase.fixed and template.split()[0] in IMPERATIVE:
                filled = self.fill(template, fixed=False)
                text = filled and self.unwished(_unmarked(filled[0])[0])
                return self.finish(text, (LEAVE,), "leave", "") if text else None
        return None

    def unwished(self, wish: str) -> str:
        """The words of a wish in a sentence that forbids it, tells of it or doubts it."""
        rng = self.rng
        if rng.random() < 0.5:
            return rng.choice(FRAMES["not"]) + wish
        verb, _, rest = wish.partition(" ")
        form = rng.choice(("past", "gerund", "plain"))
        said = {"past": past(verb), "gerund": gerund(verb), "plain": verb}[form]
        return rng.choice(FRAMES[f"doubt_{form}"]).replace("§", f"{said} {rest}".strip())

    def conditioned(self) -> Example | None:
        """A wish with something it waits for before or after it."""
        rng = self.rng
        tool = rng.choice(self.effects if rng.random() < 0.7 else self.tools)
        for _ in range(40):
            phrase = self.pick(tool)
            template = self.expand(phrase.template)
            if not phrase.fixed and template.split()[0] in IMPERATIVE and not template.endswith(("?", ".")):
                filled = self.fill(template, fixed=False)
                text = filled and _unmarked(filled[0])[0]
                if text and rng.random() < 0.5:
                    text = (
                        f"{rng.choice(FRAMES['condition_before'])}{rng.choice([', ', ' ', ' then '])}{text}"
                    )
                elif text:
                    text = f"{text} {rng.choice(FRAMES['condition_after'])}"
                return self.finish(text, (WHEN,), "condition", "") if text else None
        return None

    def joined(self) -> Example | None:
        """Two or three phrases side by side."""
        rng = self.rng
        many = 3 if rng.random() < 0.2 else 2
        phrases = [self.pick(rng.choices(self.tools, self.tool_weights)[0]) for _ in range(many)]
        loose = ("shell.run", "file.write", "math.eval", "python.run")
        if (
            len({phrase.kind for phrase in phrases}) < many
            or any(phrase.kind in loose for phrase in phrases[:-1])
            or any(phrase.fixed for phrase in phrases)
        ):
            return None
        templates = [self.expand(phrase.template) for phrase in phrases]
        imperative = [template.split()[0] in IMPERATIVE for template in templates]
        question = [template.split()[0] in QUESTION for template in templates]
        natural = (
            (imperative[0] and not any(question[1:]))
            or all(question)
            or (not any(imperative) and not any(question))
        )
        if not natural and rng.random() < 0.7:
            return None
        parts: list[str] = []
        labels: list[str] = []
        for phrase, template in zip(phrases, templates, strict=True):
            filled = self.fill(template, fixed=False)
            if filled is None:
                return None
            parts.append(filled[0])
            labels += self.labels(phrase.target, filled[1])
        join = rng.choice(FRAMES["join_things"] if not any(imperative) else FRAMES["join"])
        text = join.join([", ".join(parts[:-1]), parts[-1]])
        return self.finish(self.noise.framed(text), tuple(labels), "multi", "")

    # Requests that lean on the one before.

    def follow(self) -> Example | None:
        rng = self.rng
        draw = rng.random()
        written = self.by_kind.get("follow", []), self.by_kind.get("fresh", [])
        if draw < 0.5 and written[0]:
            return self.written(rng.choice(written[0] if draw < 0.4 or not written[1] else written[1]))
        return self.referring() if draw < 0.75 else self.another()

    def written(self, phrase: Phrase) -> Example | None:
        """A line of the corpus that has both requests."""
        before = self.fill(self.expand(phrase.before), fixed=True)
        return before and self.call(phrase, before=_unmarked(before[0])[0])

    def referring(self) -> Example | None:
        """ "restart it", after a request that had a service."""
        phrase = self.pick("ask")
        (tool, _), *slots = phrase.target
        key = slots[0][0] if slots else self.specs[tool].required[0]
        if key not in REFERRED or "{" in phrase.template:
            return None
        before = self.request_with(key)
        optional = key not in self.specs[tool].required
        label = call_label(self.specs[tool], {}, (), (key,) if optional else ())
        return before and self.plain(phrase, label, before=before[0])

    def another(self) -> Example | None:
        """ "and redis?": the same with another value."""
        rng = self.rng
        key = rng.choice(("unit", "unit", "path", "path", "name", "number"))
        before = self.request_with(key)
        if before is None:
            return None
        text, phrase = before
        slot, kind = next(
            (match[1], match[3] or match[1])
            for match in SLOT.finditer(phrase.template)
            if match[1] == key or (key == "number" and match[1] in ("lines", "count"))
        )
        section = "another_number" if key == "number" else "another"
        said = _marked(self.values.of(kind, slot), slot)
        tool, arguments = phrase.target[0]
        kept = {
            name: value if name == slot or not value.startswith("{") else "^"
            for name, value in arguments.items()
        }
        labels = self.labels(((tool, kept),), {slot})
        return self.finish(rng.choice(FRAMES[section]).replace("§", said), labels, "follow", text)

    def request_with(self, key: str) -> tuple[str, Phrase] | None:
        """A plain request that holds a value of this argument."""
        for _ in range(40):
            phrase = self.pick(self.rng.choice(self.tools))
            names = {match[1] for match in SLOT.finditer(phrase.template)}
            if key in names or (key == "number" and names & {"lines", "count"}):
                filled = self.fill(self.expand(phrase.template), fixed=True)
                return filled and (_unmarked(filled[0])[0], phrase)
        return None

    def labels(self, target: Target, bound: Bound) -> tuple[str, ...]:
        """The labels of these calls. A slot that a call before has taken is no second time in the text."""
        taken: set[str] = set()
        labels = []
        for tool, arguments in target:
            spec = self.specs[tool]
            fixed, spoken, inherited = {}, set(), set()
            for key, value in arguments.items():
                name = value[1:-1]
                if value == "^" or (value.startswith("{") and name in taken):
                    inherited.add(key)
                elif value.startswith("{"):
                    assert name in bound, (target, bound)
                    taken.add(name)
                    spoken.add(key)
                else:
                    fixed[key] = value
            labels.append(call_label(spec, fixed, spoken, inherited))
        return tuple(labels)

    # Words.

    def expand(self, template: str) -> str:
        while match := CHOICE.search(template):
            choice = self.rng.choice(match[1].split("|"))
            template = template[: match.start()] + choice + template[match.end() :]
        return re.sub(r" +('s\b|,|:)", r"\1", " ".join(template.split()))

    def fill(self, template: str, *, fixed: bool) -> tuple[str, Bound] | None:
        """The template with values, each between marks that name its slot."""
        if blank(SLOT.sub("§", template), []) in self.heldout:
            self.dropped += 1
            return None
        said: dict[str, str] = {}
        bound: Bound = set()
        out, at = [], 0
        for match in SLOT.finditer(template):
            between = template[at : match.start()]
            out.append(between if fixed else self.noise.roughen(between))
            key = match[1] + match[2]
            junk = key == "_" or match[1] == "junk" or match[1] not in ARGUMENTS
            if key not in said or junk:
                value = self.values.of(match[3] or match[1], match[1])
                said[key] = value[0] if junk else _marked(value, match[1])
                bound.add(key)
            out.append(said[key])
            at = match.end()
        out.append(template[at:] if fixed else self.noise.roughen(template[at:]))
        return "".join(out), bound

    def finish(
        self, text: str, labels: tuple[str, ...], kind: str, before: str, *, whole: bool = False
    ) -> Example | None:
        text = self.noise.punctuated(text.lower().strip(), whole=whole)
        plain, spans = _unmarked(" ".join(text.split()))
        if not plain or len(labels) > CALLS or blank(plain, []) in self.heldout:
            self.dropped += 1
            return None
        if labels[0] in (NO, LEAVE, WHEN) or labels[0].startswith((TALK, ABOUT)):
            spans = ()
        return Example(plain, kind, Reading(labels, spans), before.lower())


SLOTS = (
    "unit", "path", "from", "to", "number", "name", "name.suffix", "name.part", "text", "command",
    "expression", "zone", "host", "code",
)  # fmt: skip


# Slots of a template that are arguments; the others are words to vary it by.
ARGUMENTS = frozenset({slot.split(".")[0] for slot in SLOTS} | {"lines", "count"})


def _tagged(argument: str, target: str) -> str:
    """The slot that a value is tagged as, by its argument and by what `Values` says of it."""
    if argument in ("lines", "count"):
        return "number"
    if target.startswith("⟨*.⟩"):
        return f"{argument}.suffix"
    return f"{argument}.part" if target.startswith("⟨*⟩") else argument


def _marked(value: Value, argument: str) -> str:
    """A value as it is said, with marks around the part of it that is the argument."""
    said, target = value
    slot = SLOTS.index(_tagged(argument, target))
    bare = target.removeprefix("⟨*.⟩").removeprefix("⟨*⟩").strip()
    at = said.find(bare)
    return f"{said[:at]}{chr(_OPEN + slot)}{bare}{_CLOSE}{said[at + len(bare) :]}"


def _unmarked(text: str) -> tuple[str, tuple[Span, ...]]:
    """The text without marks, and where the values stand in it."""
    spans: list[Span] = []
    out, at, length = [], 0, 0
    for match in _MARKED.finditer(text):
        out += [text[at : match.start()], match[2]]
        length += match.start() - at
        spans.append(Span(SLOTS[ord(match[1]) - _OPEN], length, length + len(match[2])))
        length += len(match[2])
        at = match.end()
    out.append(text[at:])
    return "".join(out), tuple(spans)
