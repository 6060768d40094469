"""Corrections of a user's, as phrases of the corpus: lines {"text", "calls", "was"}, as clawsh keeps them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from clawos.inference.builtin import ToolSpec
from qa.model.corpus import Phrase


def read(path: Path, tools: dict[str, ToolSpec]) -> list[Phrase]:
    """One phrase for each correction whose values stand in its text; the others teach nothing."""
    phrases = []
    for line in path.read_text().splitlines():
        found = json.loads(line)
        phrase = _phrase(found["text"].lower(), found["calls"], tools)
        if phrase:
            phrases.append(phrase)
    return phrases


def _phrase(text: str, calls: list[dict[str, dict[str, str]]], tools: dict[str, ToolSpec]) -> Phrase | None:
    template, target, seen = text, [], 0
    for call in calls:
        name = str(call["tool"])
        if name not in tools:
            return None
        arguments = {}
        for key, value in call["args"].items():
            if "enum" in tools[name].properties.get(key, {}):
                arguments[key] = str(value)
                continue
            slot = f"{key}{seen or ''}"
            template, count = re.subn(
                rf"(?<![\w/.{{-]){re.escape(str(value).lower())}(?![\w/}}-]|\.\w)",
                f"{{{slot}}}",
                template,
                count=1,
            )
            if not count:
                return None
            arguments[key] = f"{{{slot}}}"
        target.append((name, arguments))
        seen = seen + 1 if seen else 2
    # The corpus gives choices in brackets a meaning of their own.
    if len(target) == 0 or re.search(r"[()|]", template):
        return None
    kind = target[0][0] if len(target) == 1 else "multi"
    return Phrase(kind, template, tuple(target))
