"""Store what the shipped file answers, for test_parity: python -m qa.model.freeze_parity. Then review it."""

from __future__ import annotations

import json

from clawos.inference.builtin import MAX_TOKENS, grammar, prompt
from qa.model.data import catalogue
from qa.model.decode import Model
from qa.model.paths import HERE, MODEL

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
)


def main() -> None:
    rules = grammar(catalogue())
    with Model(MODEL) as model:
        table = [
            {
                "text": text,
                "output": model.complete(prompt([{"role": "user", "content": text}]), rules, MAX_TOKENS),
            }
            for text in TEXTS
        ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table)
    (HERE / "parity.json").write_text(f"[\n{lines}\n]\n")
    for row in table:
        print(f"{row['text']}\n    {row['output']}")


if __name__ == "__main__":
    main()
