"""Store what the shipped file answers, for test_parity: python -m qa.model.freeze_parity. Then review it."""

from __future__ import annotations

import json
from typing import Any

from qa.model.corpus import catalogue
from qa.model.paths import HERE
from qa.model.shipped import Shipped

TEXTS = (
    "how much memory is free?",
    "Restart nginx and show me its log",
    "show the last fifty lines of sshd",
    "don't restart nginx",
    "what's the weather in Lisbon",
    "restart the service",
    "delete /home/ann/old-report_v2.txt",
    "write 'buy milk' to notes.txt",
    "what is 12 * (3 + 4)?",
    "is docker running",
    "which ports are open",
    "find all pdf files in ~/Documents",
    "run ls -la /tmp",
    "hello",
    "how do i stop a service",
    "top 5 processes by memory",
    "restart nginx if it is down",
    ("is nginx running?", "and redis?"),
    ("is nginx running?", "show its log"),
    ("show me /etc/hosts", "how much memory is free"),
)


def answer(model: Shipped, text: str, before: str = "") -> dict[str, Any]:
    """The labels, the values and the calls of one request."""
    reading, reply = model.answer(text, catalogue(), before)
    return {
        **({"before": before} if before else {}),
        "text": text,
        "labels": list(reading.labels),
        "values": [[span.slot, text[span.start : span.end]] for span in reading.spans],
        "calls": [{"tool": call.tool, "args": dict(call.arguments)} for call in reply.calls],
    }


def main() -> None:
    with Shipped() as model:
        table = [
            answer(model, text) if isinstance(text, str) else answer(model, text[1], text[0])
            for text in TEXTS
        ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table)
    (HERE / "parity.json").write_text(f"[\n{lines}\n]\n")
    for row in table:
        print(f"{row['text']}\n    {row['labels']} {row['values']} {row['calls']}")


if __name__ == "__main__":
    main()
