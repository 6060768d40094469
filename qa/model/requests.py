"""make eval REQUESTS=file.jsonl: what the shipped model makes of each request, without carrying anything out.

Reads lines {"id": …, "text": …}, with "before": the request right before, where there was one. Prints for
each one line {"id", "calls": [{"tool", "args"}], "text"}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from qa.model.corpus import catalogue
from qa.model.paths import MODEL
from qa.model.shipped import ClawError, Shipped


class Line(NamedTuple):
    """One request of the file."""

    id: str | int
    text: str
    before: str


class BadLine(Exception):
    """A line of the input that is no request."""


def read(path: Path) -> Iterator[Line]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadLine(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadLine(f"{path}: not UTF-8 at byte {error.start}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadLine(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}") from error
        if not isinstance(item, dict):
            raise BadLine(f"{path}:{number}: expected an object with id and text")
        if not isinstance(item.get("id"), (str, int)) or isinstance(item.get("id"), bool):
            raise BadLine(f"{path}:{number}: id: expected a text or a number")
        for key in ("text", "before"):
            if not isinstance(item.get(key, "" if key == "before" else None), str):
                raise BadLine(f"{path}:{number}: {key}: expected a text")
        yield Line(item["id"], item["text"], item.get("before", ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    options = parser.parse_args()
    try:
        items = list(read(options.requests))
    except BadLine as error:
        print(error, file=sys.stderr)
        return 2
    tools = catalogue()
    try:
        with Shipped(options.model) as model:
            for item in items:
                _, reply = model.answer(item.text, tools, item.before)
                calls = [{"tool": call.tool, "args": dict(call.arguments)} for call in reply.calls]
                line = {"id": item.id, "calls": calls, "text": reply.text}
                print(json.dumps(line, ensure_ascii=False), flush=True)
    except ClawError as error:
        print(f"{error.message} ({error.hint})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
