"""docs/benchmarks.md from build/bench/*.json: one table a part, flattened, nothing by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

TARGETS = {
    "image.root_bytes": "≤ 268435456",
    "image.rebuild_s": "< 60",
    "boot.used_mib": "≤ 350",
    "registry.load_ms.p50": "< 100",
    "inference.builtin.request_to_call_ms.p50": "≤ 350",
    "inference.small.ratio": "≥ 0.95",
    "inference.large_vocabulary.ratio": "≥ 0.95",
    "inference.large_vocabulary.grammar_ms_per_token": "≤ 2",
    "clawsh.prompt.median_ms": "≤ 200",
    "clawsh.command.median_ms": "≤ 80",
}


def _rows(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _rows(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def write(directory: Path, page: Path) -> None:
    lines = ["# Benchmarks", "", "Written by `make bench`; the raw numbers are in `build/bench/*.json`.", ""]
    for path in sorted(directory.glob("*.json")):
        result = json.loads(path.read_text())
        on = result.pop("machine")
        date, load = result.pop("date"), result.pop("load_before")
        lines += [f"## {path.stem}", ""]
        lines += [
            f"{date}, {on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB, load before {load:.1f}.",
            "",
        ]
        lines += ["| measure | value | target |", "|---|---|---|"]
        for name, value in _rows(result):
            shown = f"{value:.4g}" if isinstance(value, float) else f"{value}"
            lines.append(f"| {name} | {shown} | {TARGETS.get(f'{path.stem}.{name}', '')} |")
        lines.append("")
    page.write_text("\n".join(lines))
