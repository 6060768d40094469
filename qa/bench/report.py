"""docs/benchmarks.md from build/bench/*.json: one table a part, flattened, nothing by hand.

A list of records in a part's numbers is a table of its own; its `note` stands before them.
"""

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
    "inference.builtin.grammar_share": "≤ 0.1",
    "inference.builtin.ratio": "≥ 0.95",
    "inference.small.ratio": "≥ 0.95",
    "inference.large_vocabulary.ratio": "≥ 0.95",
    "inference.large_vocabulary.grammar_ms_per_token": "≤ 2",
    "sandbox.ours_to_bwrap.launcher": "≤ 0.5",
    "sandbox.ours_to_bwrap.launcher_class": "≤ 0.5",
    "sandbox.python_to_bare.launcher": "≤ 1.3",
    "sandbox.python_to_bare.launcher_class": "≤ 1.3",
    "sandbox.python_to_bare.zygote": "≤ 0.5",
    "sandbox.python_to_bare.zygote_class": "≤ 0.5",
    "sandbox.bus.calls_per_s.in_flight_8": "≥ 300",
    "sandbox.bus.calls_per_s.real_time_in_flight_8": "≥ 300",
    "sandbox.memory.growth_kib": "flat",
    "sandbox.bus.payload.to_first_byte.p50_ms": "≤ 5",
    "sandbox-image.ours_to_bwrap.launcher": "≤ 0.5",
    "sandbox-image.ours_to_bwrap.launcher_class": "≤ 0.5",
    "sandbox-image.python_to_bare.launcher": "≤ 1.3",
    "sandbox-image.python_to_bare.launcher_class": "≤ 1.3",
    "sandbox-image.python_to_bare.zygote": "≤ 0.5",
    "sandbox-image.python_to_bare.zygote_class": "≤ 0.5",
    "monitor.added_percent.outside.execve": "≤ 1",
    "monitor.added_percent.outside.openat": "≤ 1",
    "monitor.added_percent.outside.connect": "≤ 1",
    "monitor.added_percent.outside.build": "≤ 3",
    "monitor.added_percent.inside.execve": "≤ 5",
    "monitor.added_percent.inside.openat": "≤ 5",
    "monitor.added_percent.inside.connect": "≤ 5",
    "monitor.added_percent.inside.build": "≤ 3",
    "monitor.xdp.filter_to_none": "≥ 0.97",
    "clawsh.prompt.median_ms": "≤ 200",
    "clawsh.command.median_ms": "≤ 80",
}


def _rows(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _rows(inner, f"{name}.{key}" if name else str(key))
    elif not isinstance(value, list):
        yield name, value


def _tables(value: object, name: str = "") -> Iterator[tuple[str, list[dict[str, object]]]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _tables(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, value


def _table(rows: list[dict[str, object]]) -> Iterator[str]:
    columns = list(rows[0])
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield f"| {' | '.join(_shown(row.get(column, '')) for column in columns)} |"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def write(directory: Path, page: Path) -> None:
    lines = ["# Benchmarks", "", "Written by `make bench`; the raw numbers are in `build/bench/*.json`.", ""]
    for path in sorted(directory.glob("*.json")):
        result = json.loads(path.read_text())
        on = result.pop("machine")
        date, load, note = result.pop("date"), result.pop("load_before"), result.pop("note", "")
        lines += [f"## {path.stem}", ""]
        lines += [
            f"{date}, {on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB, load before {load:.1f}.",
            "",
        ]
        lines += [note, ""] if note else []
        lines += ["| measure | value | target |", "|---|---|---|"]
        for name, value in _rows(result):
            lines.append(f"| {name} | {_shown(value)} | {TARGETS.get(f'{path.stem}.{name}', '')} |")
        lines.append("")
        for name, rows in _tables(result):
            lines += [f"### {name}", "", *_table(rows), ""]
    page.write_text("\n".join(lines))
