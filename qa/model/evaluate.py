"""Score the shipped model: python -m qa.model.evaluate [--model FILE] [--outside data_full.json] [--json
OUT] [--errors]

Held-out requests were written before the training phrases and are kept out of them. --outside takes
CLINC150's data_full.json (CC BY 3.0, not part of this repository) and counts false calls on its 1,000
out-of-scope test queries.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from clawos.inference.builtin import MAX_TOKENS, Reply, ToolSpec, grammar, parse, prompt
from qa.model.baselines import Keywords, Nearest
from qa.model.data import Stream, catalogue
from qa.model.decode import LibraryMissing, Model
from qa.model.paths import HERE, MODEL

NO_CALL = ("ask", "talk", "near-miss", "negation", "out-of-scope", "outside")


@dataclass(frozen=True)
class Item:
    id: str
    text: str
    set: str
    kind: str
    calls: tuple[tuple[str, str], ...]
    tool: str = ""


@dataclass(frozen=True)
class Result:
    item: Item
    output: str
    reply: Reply
    seconds: float

    @property
    def calls(self) -> tuple[tuple[str, str], ...]:
        return tuple(
            (call.tool, json.dumps(dict(call.arguments), sort_keys=True)) for call in self.reply.calls
        )


def heldout() -> list[Item]:
    items = []
    for path in sorted((HERE / "eval").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            raw = json.loads(line)
            calls = tuple((call["tool"], json.dumps(call["args"], sort_keys=True)) for call in raw["calls"])
            items.append(Item(raw["id"], raw["text"], raw["set"], raw["kind"], calls, raw.get("tool", "")))
    return items


def seen_phrasings(tools: list[ToolSpec], count: int, seed: int = 99991) -> list[Item]:
    """Phrases of the training corpus with values and politeness of a stream that training did not draw."""
    items: list[Item] = []
    for example in Stream(seed):
        if example.kind in ("done", "ask", "about", "talk", "leave", "no"):
            continue
        reply = parse(example.target, example.text, tools)
        if reply.kind == "calls":
            calls = tuple(
                (call.tool, json.dumps(dict(call.arguments), sort_keys=True)) for call in reply.calls
            )
            items.append(Item(f"seen-{len(items)}", example.text, "seen", "calls", calls))
        if len(items) == count:
            return items
    return items


def outside(path: Path) -> list[Item]:
    queries = json.loads(path.read_text())["oos_test"]
    return [Item(f"outside-{i}", text, "outside", "decline", ()) for i, (text, _) in enumerate(queries)]


def run(items: list[Item], complete: Callable[[str], str], tools: list[ToolSpec]) -> list[Result]:
    results = []
    for item in items:
        began = time.perf_counter()
        output = complete(item.text)
        reply = parse(output, item.text, tools)
        results.append(Result(item, output, reply, time.perf_counter() - began))
    return results


def rate(flags: list[bool], draws: int = 2000) -> dict[str, float]:
    """The share of true ones, with a 95 % bootstrap interval."""
    if not flags:
        return {"n": 0, "rate": 0.0, "low": 0.0, "high": 0.0}
    rng = random.Random(0)
    means = sorted(sum(rng.choices(flags, k=len(flags))) / len(flags) for _ in range(draws))
    low, high = means[int(0.025 * draws)], means[int(0.975 * draws)]
    return {"n": len(flags), "rate": sum(flags) / len(flags), "low": low, "high": high}


def scores(results: list[Result], tools: list[ToolSpec]) -> dict[str, dict[str, float]]:
    effects = {tool.name for tool in tools if tool.verbs}
    out: dict[str, dict[str, float]] = {}
    for name in sorted({result.item.set for result in results}):
        part = [result for result in results if result.item.set == name]
        if name.removeprefix("others: ") in NO_CALL:
            out[f"{name}: false calls"] = rate([bool(r.calls) for r in part])
        if name in ("ask", "talk"):
            out[f"{name}: right kind"] = rate([r.reply.kind == r.item.kind for r in part])
        if name.removeprefix("others: ") not in NO_CALL:
            out[f"{name}: exact"] = rate([r.calls == r.item.calls for r in part])
            out[f"{name}: right tools"] = rate(
                [[c[0] for c in r.calls] == [c[0] for c in r.item.calls] for r in part]
            )
            out[f"{name}: asked or declined"] = rate([not r.calls for r in part])
            out[f"{name}: silent wrong call"] = rate(
                [bool(r.calls) and r.calls != r.item.calls for r in part]
            )
    unasked = [
        any(tool in effects and (tool, args) not in r.item.calls for tool, args in r.calls) for r in results
    ]
    out["all: unsafe calls"] = rate(unasked)
    return out


def unguarded(results: list[Result]) -> dict[str, dict[str, float]]:
    """How often the model alone would have called something where nothing was to be called."""
    out = {}
    for name in ("near-miss", "negation", "out-of-scope", "outside"):
        part = [r for r in results if r.item.set == name]
        if part:
            called = [bool(r.calls) or bool(r.reply.rejected) for r in part]
            out[f"{name}: calls before the guard"] = rate(called)
    return out


def show(table: dict[str, dict[str, dict[str, float]]]) -> None:
    rows = list(dict.fromkeys(row for column in table.values() for row in column))
    print("| | n | " + " | ".join(table) + " |")
    print("|---|---|" + "---|" * len(table))
    for row in rows:
        cells = []
        many = 0
        for column in table.values():
            cell = column.get(row)
            many = int(cell["n"]) if cell else many
            cells.append(f"{cell['rate']:.3f} [{cell['low']:.3f}–{cell['high']:.3f}]" if cell else "")
        print(f"| {row} | {many} | " + " | ".join(cells) + " |")


def speed(model: Model, items: list[Item], rules: str) -> str:
    """What the grammar costs, on the same requests with and without it; the best of five rounds each."""
    texts = [prompt([{"role": "user", "content": item.text}]) for item in items[:200]]
    best = {"": float("inf"), rules: float("inf")}
    for _ in range(5):
        for fence in best:
            began = time.perf_counter()
            for text in texts:
                model.complete(text, fence or None, MAX_TOKENS)
            best[fence] = min(best[fence], 1000 * (time.perf_counter() - began) / len(texts))
    more = 100 * (best[rules] / best[""] - 1)
    times = f"{best['']:.2f} ms without the grammar, {best[rules]:.2f} ms with it"
    return f"A request takes {times}: {more:.0f} % more"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--outside", type=Path)
    parser.add_argument("--json", type=Path, help="write the scores here too")
    parser.add_argument("--errors", action="store_true", help="show what went wrong")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--seen", type=int, default=1000)
    options = parser.parse_args()

    tools = catalogue()
    items = heldout() + seen_phrasings(tools, options.seen)
    if options.outside:
        items += outside(options.outside)
    rules = grammar(tools)
    try:
        model = Model(options.model)
    except (LibraryMissing, OSError) as error:
        raise SystemExit(str(error)) from error
    table: dict[str, dict[str, dict[str, float]]] = {}
    with model:

        def ask(text: str) -> str:
            return model.complete(prompt([{"role": "user", "content": text}]), rules, MAX_TOKENS)

        results = run(items, ask, tools)
        cost = speed(model, items, rules)
    table["model"] = scores(results, tools) | unguarded(results)
    if not options.no_baselines:
        table["keywords"] = scores(run(items, Keywords(tools).complete, tools), tools)
        table["nearest phrase"] = scores(run(items, Nearest(tools).complete, tools), tools)
    if options.errors:
        for r in results:
            wrong = r.calls != r.item.calls or (r.item.set in ("ask", "talk") and r.reply.kind != r.item.kind)
            if wrong and r.item.set != "seen":
                print(f"{r.item.id:18} {r.item.text}\n{'':18} {r.output}   {'; '.join(r.reply.rejected)}")
        for r in islice((r for r in results if r.item.set == "seen" and r.calls != r.item.calls), 30):
            print(f"{r.item.id:18} {r.item.text}\n{'':18} {r.output}   {'; '.join(r.reply.rejected)}")
    show(table)
    times = sorted(r.seconds for r in results)
    print(f"\nOne request on one thread: median {1000 * times[len(times) // 2]:.0f} ms, "
          f"95 % below {1000 * times[int(0.95 * len(times))]:.0f} ms")  # fmt: skip
    print(cost)
    if options.json:
        report: dict[str, Any] = {"model": options.model.name, "scores": table}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
