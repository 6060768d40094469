"""Words for numbers and arithmetic, and what the model's branches say aloud."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from clawos.inference.builtin.tool import ToolSpec

_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_UNITS = f"zero one two three four five six seven eight nine {_TEENS}".split()
_SMALL = {word: i for i, word in enumerate(_UNITS)} | {"a": 1, "an": 1, "dozen": 12, "half": 0}
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * i for i, word in enumerate(_TENS_WORDS.split(), 2)}
_SCALE = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
NUMBER_WORDS = frozenset({*_UNITS, *_TENS, *_SCALE, "dozen"})


def number(text: str) -> int | None:
    """An integer from digits or English words: `50`, `fifty`, `a hundred`, `two hundred and ten`."""
    text = text.strip().lower()
    if re.fullmatch(r"[0-9]{1,12}", text):
        return int(text)
    total = part = 0
    seen = False
    for word in re.split(r"[\s-]+", text):
        if word == "and" and seen:
            continue
        if word == "dozen":
            part = max(part, 1) * 12
        elif word in _SMALL and word != "half":
            part += _SMALL[word]
        elif word in _TENS:
            part += _TENS[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in _SCALE:
            total, part = total + max(part, 1) * _SCALE[word], 0
        else:
            return None
        seen = seen or word in NUMBER_WORDS
    return total + part if seen else None


_OPERATORS = (
    (r"\bto the power of\b|\braised to\b|\^", " ** "),
    (r"\bdivided by\b|\bover\b|÷", " / "),
    (r"\bmultiplied by\b|\btimes\b|×", " * "),
    (r"(?<=[0-9)]) ?x ?(?=[0-9(])", " * "),
    (r"\bplus\b|(?<=[0-9]) and (?=[0-9])", " + "),
    (r"\bminus\b|\bless\b|−", " - "),
    (r"\bsquared\b", " ** 2"),
    (r"\bcubed\b", " ** 3"),
    (r"\bmod(?:ulo)?\b", " % "),
    (r"(?:%|\bper ?cent\b) of\b", " / 100 * "),
    (r"\bopen (?:paren(?:thesis)?|bracket)\b", " ( "),
    (r"\bclose (?:paren(?:thesis)?|bracket)\b", " ) "),
)
_NUMBER_WORD = f"(?:{'|'.join(sorted(NUMBER_WORDS))})"
_NUMBER_RUN = re.compile(rf"\b(?:an? )?{_NUMBER_WORD}(?:[ -](?:and )?{_NUMBER_WORD})*\b")


def arithmetic(text: str) -> str | None:
    """An expression in operators from how it was said: `12 times 3` is `12 * 3`; None if words are left
    over.
    """
    said = text.lower()
    out = _NUMBER_RUN.sub(lambda match: str(number(match[0])), said)
    root = re.fullmatch(r"(?:the )?(?:square root|sqrt) ?(?:of )?\(?([0-9.]+)\)?", out)
    if root:
        return f"{root[1]} ** 0.5"
    for pattern, operator in _OPERATORS:
        out = re.sub(pattern, operator, out)
    if out != said:
        out = re.sub(r"\s+", " ", out)
    out = out.strip()
    if not re.fullmatch(r"[0-9.+\-*/%(), ]+", out) or not re.search(r"[0-9]", out):
        return None
    return out


# The question for a missing argument, by its name; anything else is asked for by its description.
_QUESTIONS = {
    "unit": "Which service?",
    "path": "Which file or directory?",
    "name": "What is its name?",
    "text": "Which text?",
    "expression": "What should I work out?",
    "command": "Which command?",
    "lines": "How many lines?",
    "count": "How many?",
}


def question(tool: ToolSpec, slot: str) -> str:
    """What to ask when a request does not say enough."""
    known = _QUESTIONS.get(slot)
    said = str(tool.properties.get(slot, {}).get("description", "")) or slot
    return f"{_bare(tool)}: {known}" if known else f"{_bare(tool)}: what is the {slot} ({said})?"


def is_question_of_ours(text: str) -> bool:
    """Whether an assistant's message ends in a question for an argument."""
    text = text.strip()
    return any(text.endswith(end) for end in _QUESTIONS.values()) or bool(
        re.search(r": what is the .*\)\?$", text)
    )


def confirm(tool: ToolSpec) -> str:
    """What to say when an effect would follow that the request did not ask for in plain words."""
    return f"I am not sure you want this: {_bare(tool).lower()}. If so, please say it in plain words."


_UNSURE = "Do you want me to"
_YES = re.compile(
    r"(?:yes|y|yep|yeah|yup|ok|okay|sure|right|exactly|correct|please|do it)(?:,? (?:please|do|do it))?[.!]?"
)


def unsure(tools: Sequence[ToolSpec]) -> str:
    """What to say when the model does not understand well enough to act."""
    if not tools:
        return decline()
    guess = " and ".join(_bare(tool).lower() for tool in tools)
    return f"I am not sure that I understand. {_UNSURE} {guess}? Say yes, or say it in other words."


def is_unsure(text: str) -> bool:
    """Whether an assistant's message asks if we have understood."""
    return _UNSURE in text


def is_yes(text: str) -> bool:
    """Whether an answer is a yes and nothing else."""
    return bool(_YES.fullmatch(text.strip().lower()))


def about(tool: ToolSpec) -> str:
    """What a tool does, for who asks about it."""
    slots = ", ".join(f"{key} ({schema.get('description', key)})" for key, schema in tool.properties.items())
    return f"{tool.name}: {tool.description}" + (f" It takes: {slots}." if slots else "")


def decline() -> str:
    return (
        "I cannot do that with the tools I have. Ask what I can do, or run a command yourself with !COMMAND."
    )


def condition() -> str:
    return (
        "I act at once or not at all: I cannot wait, repeat or judge a condition. "
        "What should I look at, or do, right now?"
    )


def leave() -> str:
    return "All right, I leave it as it is."


def talk(topic: str, tools: Iterable[ToolSpec]) -> str:
    """Small talk about itself. The list of abilities comes from the tools at hand."""
    if topic == "help":
        can = "\n".join(f"  {_bare(tool)}" for tool in tools)
        return (
            f"Tell me in plain words what you need. I can:\n{can}"
            if can
            else "Right now I have no tools at hand."
        )
    return {
        "hello": "Hello. What can I do for you?",
        "who": "I am the built-in assistant of ClawOS: a small model on this machine that needs no network.",
        "thanks": "You are welcome.",
        "bye": "Goodbye.",
        "wellbeing": "I am a small program, and I am running well. What can I do for you?",
    }.get(topic, "")


def _bare(tool: ToolSpec) -> str:
    return (tool.description or tool.name).rstrip(".")
