"""The guard: an effect must have been asked for, in words. It only ever refuses.

A small model can be sure of itself and wrong, so its certainty is not enough here; the user's own words are.
"""

from __future__ import annotations

import re

_QUOTED = re.compile(r"(?<!\w)(?P<q>[\"'])(?P<inner>.+?)(?P=q)(?!\w)")
NO_VERB = "the request has none of the words that ask for it"
FORBIDDEN = "the request says not to"
_NOT = r"(?:do?\s?n[o']?t|don't|dont|do not|not|never|without|mustn't|shouldn't|"
_NOT += r"needn't|no need to|avoid|refrain from)"
_ASKING = re.compile(
    r"\s*(?:and |but |so |ok |hey |please |well |then )*"
    r"(?:how(?! about)|why(?! don't you| not)|what(?! about)|what's|who|whose|when|where|which|should|"
    r"did|does|has|have you|had|was|were|is(?! it possible)|are|am|tell me (?:how|why|what|about)|explain|"
    r"describe|might|if i|suppose)\b",
    re.IGNORECASE,
)


def whole(request: str, start: int, end: int) -> tuple[int, int]:
    """The same place, or all that stands in quotes where it is a part of that."""
    for match in _QUOTED.finditer(request):
        low, high = match.span("inner")
        if low - 1 <= start < high and start < end:
            return low, high
    return start, end


def asked_for(verbs: tuple[str, ...], request: str) -> str:
    """Why the request does not ask for what these verbs do: '' when it does."""
    if not verbs:
        return ""
    verb = "|".join(_verb(verb) for verb in sorted(verbs, key=len, reverse=True))
    said = rf"(?<![\w/.-])(?:{verb})(?![\w/-])(?!\.\w)"
    if not re.search(said, request, re.IGNORECASE):
        request = _spelt(request, verbs)
        if not re.search(said, request, re.IGNORECASE):
            return NO_VERB
    clauses = [
        clause for clause in re.split(r"[.?!;,](?:\s|$)|\b(?:and|then|but)\b", request) if clause.strip()
    ]
    holding = [clause for clause in clauses if re.search(said, clause, re.IGNORECASE)]
    negated = re.compile(rf"\b{_NOT}\W+(?:[\w.@/-]+\W+){{0,3}}?(?:{verb})", re.IGNORECASE)
    free = [clause for clause in holding if not negated.search(clause)]
    if holding and not free:
        return FORBIDDEN
    if free and all(_ASKING.match(clause) for clause in free):
        return "the request asks about it, not for it"
    return ""


def _spelt(request: str, verbs: tuple[str, ...]) -> str:
    """The request with its misspelt verbs put right: one letter too many, too few, wrong, or two swapped."""
    long = [verb for verb in verbs if len(verb) > 3 and " " not in verb]

    def right(match: re.Match[str]) -> str:
        return next((verb for verb in long if _near(match[0].lower(), verb)), match[0])

    return re.sub(r"(?<![\w./@:-])[A-Za-z]{3,}(?![\w/@:-]|\.\w)", right, request)


def _near(word: str, verb: str) -> bool:
    if len(word) == len(verb):
        wrong = [i for i, (a, b) in enumerate(zip(word, verb, strict=True)) if a != b]
        swapped = len(wrong) == 2 and wrong[1] == wrong[0] + 1
        return len(wrong) == 1 or (
            swapped and word[wrong[0]] == verb[wrong[1]] and word[wrong[1]] == verb[wrong[0]]
        )
    short, long = sorted((word, verb), key=len)
    return len(long) == len(short) + 1 and any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def _verb(verb: str) -> str:
    """A verb in any of its forms. "turn off" also stands in "turn it off" and "turn the nginx service
    off".
    """
    first, *rest = verb.split()
    if first.endswith("e"):
        forms = rf"{re.escape(first[:-1])}(?:e|es|ed|ing)"
    else:
        forms = rf"{re.escape(first)}(?:{re.escape(first[-1])}?(?:ed|ing)|e?s)?"
    return r"\s+(?:[\w.@-]+\s+){0,3}?".join([forms, *map(re.escape, rest)])
