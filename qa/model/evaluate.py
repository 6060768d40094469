"""Score the shipped model: python -m qa.model.evaluate [--model FILE] [--outside data_full.json] [--errors]

--outside takes CLINC150's data_full.json (CC BY 3.0, not part of this repository) and counts false calls on
its 1,000 out-of-scope test queries. --json keeps the scores; --compare shows columns of several such files.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from clawos.inference.builtin import Reading, Reply, Request, ToolSpec, parse
from clawos.inference.builtin.prompt import plain
from qa.model.baselines import Baseline, Keywords, Nearest
from qa.model.corpus import blank, catalogue
from qa.model.data import Stream
from qa.model.noise import Noise
from qa.model.paths import CATALOGUE, HERE, MODEL
from qa.model.shipped import ClawError, Shipped

Table = dict[str, dict[str, float]]
NO_CALL = ("ask", "talk", "near-miss", "negation", "condition", "out-of-scope", "outside")
_STOP = """
    a an the my your this that these those it its is are was were be been am i me you we us
    he she they them of to in on at for from by with and or but so if then there here please
    pls can could would will do does did have has had want need like just now ok hey hi what
    which how who when where why much many any some all up out about as not no s t m re ve ll
    d
"""
STOP_WORDS = frozenset(_STOP.split())


@dataclass(frozen=True)
class Item:
    """A request, and what it should lead to."""

    id: str
    text: str
    set: str
    kind: str
    calls: tuple[tuple[str, str], ...] = ()
    before: str = ""


@dataclass(frozen=True)
class Result:
    """What it led to."""

    item: Item
    reading: Reading | None
    reply: Reply
    seconds: float

    @property
    def calls(self) -> tuple[tuple[str, str], ...]:
        return tuple(
            (call.tool, json.dumps(dict(call.arguments), sort_keys=True)) for call in self.reply.calls
        )


def heldout() -> list[Item]:
    """All of eval/*.jsonl."""
    items = []
    for path in sorted((HERE / "eval").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            raw = json.loads(line)
            calls = tuple((call["tool"], json.dumps(call["args"], sort_keys=True)) for call in raw["calls"])
            items.append(Item(raw["id"], raw["text"], raw["set"], raw["kind"], calls, raw.get("before", "")))
    return items


def seen_phrasings(tools: list[ToolSpec], count: int, *, misspelt: bool, seed: int = 99991) -> list[Item]:
    """Phrases of the training corpus with values and politeness of a stream that training did not draw."""
    items: list[Item] = []
    name = "seen, misspelt" if misspelt else "seen"
    for example in Stream(seed, misspelt=misspelt):
        if example.kind in ("ask", "about", "talk", "leave", "no", "condition", "follow") or example.before:
            continue
        reply = parse(example.reading, Request(example.text), tools)
        if reply.kind == "calls":
            calls = tuple(
                (call.tool, json.dumps(dict(call.arguments), sort_keys=True)) for call in reply.calls
            )
            items.append(Item(f"seen-{len(items)}", example.text, name, "calls", calls))
        if len(items) == count:
            return items
    return items


def derived(items: list[Item]) -> list[Item]:
    """The held-out requests for one tool once more: misspelt, after another request, and the novel ones."""
    rng = random.Random(5)
    noise = Noise(rng)
    one = [item for item in items if item.set == "one" or item.set.endswith(": one")]
    words_of: dict[str, list[frozenset[str]]] = {}
    frames = set()
    for example in islice(Stream(4), 60_000):
        tool = example.reading.labels[0].split()[0]
        values = [example.text[span.start : span.end] for span in example.reading.spans]
        words_of.setdefault(tool, []).append(_content(example.text, values))
        frames.add(_frame(example.text, values))
    out = []
    for item in one:
        values = [str(value) for _, args in item.calls for value in json.loads(args).values()]
        rough = _misspelt(item.text, values, noise)
        if rough:
            out.append(replace(item, text=rough, set="one, misspelt"))
        other = rng.choice(one)
        if other.calls[0][0] != item.calls[0][0]:
            out.append(replace(item, before=other.text, set="one, after another request"))
        content = _content(item.text.lower(), values)
        if not any(content <= seen for seen in words_of.get(item.calls[0][0], ())):
            out.append(replace(item, set="one, words never together in training"))
        if _frame(item.text.lower(), values) not in frames:
            out.append(replace(item, set="one, frame never in training"))
        if len(item.text.split()) <= 3:
            out.append(replace(item, set="one, at most three words"))
    return out


def _content(text: str, values: list[str]) -> frozenset[str]:
    return frozenset(word for word in blank(text, values).split() if word not in STOP_WORDS and word != "§")


def _frame(text: str, values: list[str]) -> str:
    """The request with a dot for each word that carries meaning."""
    return " ".join(
        word if word in STOP_WORDS or word == "§" else "·" for word in blank(text, values).split()
    )


def _misspelt(text: str, values: list[str], noise: Noise) -> str:
    """The text with a mistake in one of its longer words that is no value; "" if it has none."""
    inside = " ".join(values).lower()
    parts = text.split(" ")
    able = [
        i for i, word in enumerate(parts) if len(word) > 4 and word.isalpha() and word.lower() not in inside
    ]
    if not able:
        return ""
    at = noise.rng.choice(able)
    parts[at] = noise.typo(parts[at])
    return " ".join(parts)


def outside(path: Path) -> list[Item]:
    queries = json.loads(path.read_text())["oos_test"]
    return [Item(f"outside-{i}", text, "outside", "decline") for i, (text, _) in enumerate(queries)]


def run(items: list[Item], model: Shipped, tools: list[ToolSpec]) -> list[Result]:
    results = []
    for item in items:
        began = time.perf_counter()
        reading, reply = model.answer(item.text, tools, item.before)
        results.append(Result(item, reading, reply, time.perf_counter() - began))
    return results


def run_baseline(items: list[Item], baseline: Baseline, tools: list[ToolSpec]) -> list[Result]:
    """The same parse and guard, over what the baseline finds."""
    results = []
    for item in items:
        request = Request(plain(item.text))
        results.append(Result(item, None, parse(baseline.read(request.text), request, tools), 0.0))
    return results


def rate(flags: list[bool], draws: int = 2000) -> dict[str, float]:
    """The share of true ones, with a 95 % bootstrap interval."""
    if not flags:
        return {"n": 0, "rate": 0.0, "low": 0.0, "high": 0.0}
    rng = random.Random(0)
    means = sorted(sum(rng.choices(flags, k=len(flags))) / len(flags) for _ in range(draws))
    low, high = means[int(0.025 * draws)], means[int(0.975 * draws)]
    return {"n": len(flags), "rate": sum(flags) / len(flags), "low": low, "high": high}


def scores(results: list[Result], tools: list[ToolSpec]) -> Table:
    effects = {tool.name for tool in tools if tool.verbs}
    out: Table = {}
    for name in sorted({result.item.set for result in results}):
        part = [result for result in results if result.item.set == name]
        if name.split(": ")[-1] in NO_CALL:
            out[f"{name} | false calls"] = rate([bool(r.calls) for r in part])
            if name.split(": ")[-1] in ("ask", "talk"):
                out[f"{name} | right kind"] = rate([r.reply.kind == r.item.kind for r in part])
            continue
        out[f"{name} | exact"] = rate([r.calls == r.item.calls for r in part])
        out[f"{name} | right tools"] = rate(
            [[c[0] for c in r.calls] == [c[0] for c in r.item.calls] for r in part]
        )
        out[f"{name} | asked or declined"] = rate([not r.calls for r in part])
        out[f"{name} | silent wrong call"] = rate([bool(r.calls) and r.calls != r.item.calls for r in part])
    unasked = [
        any(tool in effects and (tool, args) not in r.item.calls for tool, args in r.calls) for r in results
    ]
    out["all | wrong calls that change something"] = rate(unasked)
    destructive = {
        path.stem for path in CATALOGUE.glob("*.toml") if 'class = "dangerous"' in path.read_text()
    }
    out["all | destructive calls not asked for"] = rate(
        [any(t in destructive and t not in {w for w, _ in r.item.calls} for t, _ in r.calls) for r in results]
    )
    return out


def show(table: dict[str, Table]) -> None:
    rows = list(dict.fromkeys(row for column in table.values() for row in column))
    print("| set | | n | " + " | ".join(table) + " |")
    print("|---|---|---|" + "---|" * len(table))
    for row in rows:
        found = [column.get(row) for column in table.values()]
        many = max(int(cell["n"]) for cell in found if cell)
        cells = [
            f"{cell['rate']:.3f} [{cell['low']:.3f}–{cell['high']:.3f}]" if cell else "" for cell in found
        ]
        print(f"| {row} | {many} | " + " | ".join(cells) + " |")


def show_errors(results: list[Result]) -> None:
    for r in results:
        wrong = r.calls != r.item.calls or (r.item.kind in ("ask", "talk") and r.reply.kind != r.item.kind)
        if wrong and "," not in r.item.set:
            made = r.reading and (
                *r.reading.labels,
                *((s.slot, r.item.text[s.start : s.end]) for s in r.reading.spans),
            )
            print(f"{r.item.set} {r.item.id}: {r.item.before and r.item.before + ' >> '}{r.item.text}")
            print(f"    wanted {r.item.calls or r.item.kind}\n    made {made} {'; '.join(r.reply.rejected)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--outside", type=Path)
    parser.add_argument("--json", type=Path, help="write the scores here too")
    parser.add_argument("--compare", type=Path, nargs="+", help="only show what --json wrote before")
    parser.add_argument("--errors", action="store_true", help="show what went wrong")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--seen", type=int, default=1000)
    options = parser.parse_args()
    if options.compare:
        show({path.stem: json.loads(path.read_text()) for path in options.compare})
        return

    tools = catalogue()
    items = heldout()
    items += derived(items)
    for misspelt in (False, True):
        items += seen_phrasings(tools, options.seen, misspelt=misspelt)
    if options.outside:
        items += outside(options.outside)
    try:
        with Shipped(options.model) as model:
            results = run(items, model, tools)
    except ClawError as error:
        raise SystemExit(f"{error.message} ({error.hint})") from error
    table = {"model": scores(results, tools)}
    if not options.no_baselines:
        table["keywords"] = scores(run_baseline(items, Keywords(tools), tools), tools)
        table["nearest phrase"] = scores(run_baseline(items, Nearest(tools), tools), tools)
    if options.errors:
        show_errors(results)
    show(table)
    times = sorted(r.seconds for r in results if not r.item.before)
    print(f"\nOne request on one thread: median {1000 * times[len(times) // 2]:.1f} ms, "
          f"99 % below {1000 * times[int(0.99 * len(times))]:.1f} ms")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(table["model"], indent=1) + "\n")


if __name__ == "__main__":
    main()
