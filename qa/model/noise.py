"""What people put around a request, and how they type: politeness, synonyms, typing mistakes."""

from __future__ import annotations

import random
import re

from qa.model.paths import CORPUS


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


# Past forms that do not end in -ed.
_PAST = {
    "run": "ran", "write": "wrote", "put": "put", "set": "set", "shut": "shut", "get": "got",
    "bring": "brought", "take": "took", "throw": "threw", "make": "made", "give": "gave",
    "begin": "began", "let": "let", "cut": "cut", "send": "sent", "find": "found", "tell": "told",
    "show": "showed", "read": "read", "have": "had", "do": "did", "see": "saw", "go": "went",
    "build": "built", "keep": "kept", "hold": "held", "tear": "tore", "know": "knew",
}  # fmt: skip
_DOUBLED = re.compile(r"[^aeiou][aeiou][bdgmnpt]$")


def past(verb: str) -> str:
    """`restart` to `restarted`, `stop` to `stopped`, `put` to `put`."""
    if verb in _PAST:
        return _PAST[verb]
    if verb.endswith("e"):
        return f"{verb}d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ied"
    return f"{verb}{verb[-1] if _DOUBLED.search(verb) and len(verb) < 6 else ''}ed"


def gerund(verb: str) -> str:
    """`restart` to `restarting`, `stop` to `stopping`, `write` to `writing`."""
    if verb.endswith("e") and not verb.endswith("ee"):
        return f"{verb[:-1]}ing"
    return f"{verb}{verb[-1] if _DOUBLED.search(verb) and len(verb) < 6 else ''}ing"


class Noise:
    """Roughens words from one random stream. It never touches a value."""

    def __init__(self, rng: random.Random, *, misspelt: bool = True) -> None:
        self.rng, self.misspelt = rng, misspelt

    def roughen(self, text: str) -> str:
        rng = self.rng
        if not text.strip():
            return text
        words = text.split(" ")
        # Some people misspell much, most do hardly.
        rate = rng.choice([0.0, 0.0, 0.03, 0.08, 0.2]) if self.misspelt else 0.0
        for i, word in enumerate(words):
            if word in SYNONYM and rng.random() < 0.12:
                words[i] = rng.choice(SYNONYM[word])
            elif word in ("the", "a", "an", "my", "is", "me") and len(words) > 2 and rng.random() < 0.05:
                words[i] = ""
            elif len(word) >= 4 and word.isalpha() and rng.random() < rate:
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
        lead = rng.choice(before) if rng.random() < 0.3 else ""
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
        if rng.random() < 0.15:
            text += rng.choice(after)
        return text

    def punctuated(self, text: str, *, whole: bool) -> str:
        """A mark at the end, now and then; `whole` texts end in a value that a mark would become part of."""
        rng = self.rng
        if rng.random() < 0.3:
            for long, short in (("don't", "dont"), ("what's", "whats"), ("i'd", "id"), ("let's", "lets")):
                text = text.replace(long, short)
        asks = text.split(" ")[0] in QUESTION or text.startswith(("can you", "could you", "would you"))
        if text.endswith(("?", "!", ".")) or whole:
            return text
        draw = rng.random()
        if asks:
            return text + ("?" if draw < 0.45 else "")
        return text + ("." if draw < 0.1 else "!" if draw < 0.13 else "?" if draw < 0.16 else "")
