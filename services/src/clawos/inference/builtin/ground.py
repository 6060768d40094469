"""The guard: a value must stand in the request, and an effect must have been asked for. It only ever refuses.

A small model is sure of itself also when it is wrong, so its certainty is worth nothing here; the user's
own words are.
"""

from __future__ import annotations

import re

_QUOTED = re.compile(r"(?<!\w)(?P<q>[\"'])(?P<inner>.+?)(?P=q)(?!\w)")
_OPERATOR_AHEAD = re.compile(
    r"\s*(?:[-+*/%^×÷(]|x\b|times\b|plus\b|minus\b|over\b|divided\b|multiplied\b|mod\b|"
    r"squared\b|cubed\b|to the power)"
)
_OPERATOR_BEHIND = re.compile(
    r"(?:[-+*/%^×÷)]|\bx|\btimes|\bplus|\bminus|\bover|\bdivided by|\bmultiplied by|\bmod|\bpower of|\d)\s*$"
)
# Where a text that is to be written, or a command, may begin and end: after one of these, before one of
# those.
_LEAD = re.compile(
    r"(?:^|[\"':,=>]|\b(?:write|writes|writing|written|save|saves|put|puts|store|note|notes|down|content|contents|text|"
    r"word|words|with|saying|says|say|is|are|be|of|line|lines|string|phrase|that|this|to|add|adds|containing|contains|"
    r"holding|holds|as|reading|reads|the|it|in|into|set|sentence|message|enter|run|runs|execute|exec|command|commands|"
    r"do|shell|bash|sh|c|script|program|running|just|please|following|out|a|an|up|me|own|remember|jot|keep|type))\s*$",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"\s*(?:$|[\"']|[.,;:!?]+(?:\s|$)|(?:to|in|into|inside|as|on|onto|under|at|please|pls|plz|for|and|then|now|thanks|"
    r"thank|will|would|could|can|within|ok|okay|there|afterwards|via|using|through|by|so|named|called|my|if|when|asap|"
    r"quickly|immediately|right|first|also|after)\b)",
    re.IGNORECASE,
)
_NOT = r"(?:do\s?n[o']?t|don't|dont|do not|not|never|without|mustn't|shouldn't|"
_NOT += r"needn't|no need to|avoid|refrain from)"
_ASKING = re.compile(
    r"\s*(?:and |but |so |ok |hey |please |well |then )*"
    r"(?:how(?! about)|why(?! don't you| not)|what(?! about)|what's|who|whose|when|where|which|should|"
    r"did|does|has|have you|had|was|were|is(?! it possible)|are|am|tell me (?:how|why|what|about)|explain|"
    r"describe|might|if i|suppose)\b",
    re.IGNORECASE,
)


def find(
    value: str, request: str, *, key: str = "", number: bool = False, effect: bool = False
) -> str | None:
    """The value in the request's own spelling, or None where it does not stand there as a whole.

    `key` is the argument's name: a unit may leave out .service, an expression must not be half of one. A
    `number` may follow a dash, as in -n20. With `effect`, a text or a command must also begin and end
    where the request lets it.
    """
    if not value:
        return ""
    pattern = r"\s+".join(re.escape(word) for word in value.split())
    quoted = [(match.start("inner"), match.end("inner")) for match in _QUOTED.finditer(request)]
    for match in re.finditer(f"(?={_start(value, key, number)}({pattern}))", request, re.IGNORECASE):
        start, end = match.start(1), match.end(1)
        before, after = request[:start], request[end:]
        if not _ends(after, key) or _cuts_quotes(start, end, quoted):
            continue
        if key == "expression" and (_OPERATOR_AHEAD.match(after) or _OPERATOR_BEHIND.search(before)):
            continue
        if effect and key in ("text", "command") and not (_LEAD.search(before) and _TAIL.match(after)):
            continue
        return match[1]
    return None


def _start(value: str, key: str, number: bool) -> str:
    """Nothing that belongs to a word, a path or a pattern may stand right before the value."""
    if number:
        return r"(?:(?<= -n)|(?<= -)|(?<![\w./:,-]))"
    if not re.match(r"[\w./~*$-]", value):
        return ""
    apart = r"(?<![\w/~@*$\\-])(?<!\w\.)(?<!\.\.)"
    return rf"(?:(?<=/etc/init\.d/)|{apart})" if key == "unit" else apart


def _ends(after: str, key: str) -> bool:
    if key == "unit" and re.match(r"\.service(?![\w.@-])", after, re.IGNORECASE):
        return True
    if re.match(r"[\w/@*=\\-]", after):
        return False
    return not re.match(r"[.:+,~%][\w/*~]", after)


def _cuts_quotes(start: int, end: int, quoted: list[tuple[int, int]]) -> bool:
    """Whether the value is only a part of what stands in quotes."""
    return any(low <= start < high and (start, end) != (low, high) for low, high in quoted)


def asked_for(verbs: tuple[str, ...], request: str) -> str:
    """Why the request does not ask for what these verbs do: '' when it does."""
    if not verbs:
        return ""
    verb = "|".join(_verb(verb) for verb in sorted(verbs, key=len, reverse=True))
    said = rf"(?<![\w/.-])(?:{verb})(?![\w/-])(?!\.\w)"
    if not re.search(said, request, re.IGNORECASE):
        return "the request has none of the words that ask for it"
    clauses = [
        clause for clause in re.split(r"[.?!;,](?:\s|$)|\b(?:and|then|but)\b", request) if clause.strip()
    ]
    holding = [clause for clause in clauses if re.search(said, clause, re.IGNORECASE)]
    negated = re.compile(rf"\b{_NOT}\W+(?:[\w.@/-]+\W+){{0,3}}?(?:{verb})", re.IGNORECASE)
    free = [clause for clause in holding if not negated.search(clause)]
    if holding and not free:
        return "the request says not to"
    if free and all(_ASKING.match(clause) for clause in free):
        return "the request asks about it, not for it"
    return ""


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
