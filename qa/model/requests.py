"""make eval REQUESTS=file.jsonl: what the shipped model makes of each request, without carrying anything out.

Reads lines {"id": …, "text": …}; prints for each one line {"id", "calls": [{"tool", "args"}], "text"}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from clawos.inference.builtin import DIALECT, MAX_TOKENS, grammar, parse, prompt
from qa.model.data import catalogue
from qa.model.decode import LibraryMissing, Model
from qa.model.paths import MODEL


class BadLine(Exception):
    """A line of the input that is no request."""


def read(path: Path) -> Iterator[tuple[str | int, str]]:
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
        if not isinstance(item.get("text"), str):
            raise BadLine(f"{path}:{number}: text: expected a text")
        yield item["id"], item["text"]


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
    rules = grammar(tools)
    try:
        with Model(options.model) as model:
            if model.metadata("clawos.dialect") != DIALECT:
                print(f"{options.model}: does not speak {DIALECT}", file=sys.stderr)
                return 1
            for key, text in items:
                output = model.complete(prompt([{"role": "user", "content": text}]), rules, MAX_TOKENS)
                reply = parse(output, text, tools)
                calls = [{"tool": call.tool, "args": dict(call.arguments)} for call in reply.calls]
                print(
                    json.dumps({"id": key, "calls": calls, "text": reply.text}, ensure_ascii=False),
                    flush=True,
                )
    except (LibraryMissing, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
