"""What the built-in model reads.

    [CLS] [call2] [call3] the request in lower case [SEP] the request before it [SEP]

The states of the first three tokens tell the first, second and third call; those of each word's first token
tell whether it is a value, and which. The request before is only there if the conversation has one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clawos.inference.builtin.reading import Call, Request
from clawos.inference.builtin.words import is_question_of_ours, is_unsure, is_yes

DIALECT = "clawos-tags-1"
PAD, UNK, CLS, SEP, CALL2, CALL3 = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[call2]", "[call3]"

# What does not fit is cut, and the values in it are then missing.
REQUEST_CHARACTERS = 2000
TOKENS = 512
BEFORE_TOKENS = 64

_PLAIN = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "`": "'"})


def plain(text: str) -> str:
    """The request as the model and the guard see it: one line, straight quotes."""
    return re.sub(r"\s+", " ", text.translate(_PLAIN)).strip()[:REQUEST_CHARACTERS]


def request(messages: Sequence[Mapping[str, Any]]) -> Request | None:
    """The words that count as the request, and what went before; None if there is nothing left to do.

    The answer to a question of ours is joined to what the question was about: "restart the service" —
    "Which service?" — "nginx" is the request "restart the service: nginx". A yes to "Do you want me to …?" is
    the request that the question was about.
    """
    at = _last_user(messages, len(messages))
    if at is None or any(message.get("role") == "tool" for message in messages[at + 1 :]):
        return None
    return _request(messages, at)


def _request(messages: Sequence[Mapping[str, Any]], at: int) -> Request | None:
    """The request of the user's message at this place."""
    text = plain(str(messages[at].get("content") or ""))
    previous = _last_user(messages, at)
    if previous is None:
        return Request(text)
    between = messages[previous + 1 : at]
    said = [str(m.get("content") or "") for m in between if m.get("role") == "assistant"]
    before = plain(str(messages[previous].get("content") or ""))
    if said and is_unsure(said[-1]) and is_yes(text):
        asked = _request(messages, previous)
        return asked and replace(asked, confirmed=True)
    if said and len(text.split()) <= 4 and is_question_of_ours(said[-1]):
        return Request(f"{before}: {text}")
    calls = tuple(
        Call(str(call.get("tool")), dict(call.get("args") or {}))
        for message in between
        for call in message.get("tool_calls") or ()
    )
    # A request that led to nothing is nothing to lean on.
    return Request(text, before, calls) if calls else Request(text)


def _last_user(messages: Sequence[Mapping[str, Any]], end: int) -> int | None:
    return next((i for i in reversed(range(end)) if messages[i].get("role") == "user"), None)
