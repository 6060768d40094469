"""The inference room: our tokens a second beside llama.cpp's own bench on one file, and the cost of grammars.

Prints JSON. The built-in model reads whole requests; what writes is measured with two models of random
weights, one of 4 million parameters and one with a vocabulary of 150,000 tokens.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "services" / "src"), str(ROOT / "services" / "tests" / "inference")]

import tinymodel  # noqa: E402 # found through the path set above

from clawos.inference.chat import ChatRequest, Event, Message, Tool  # noqa: E402
from clawos.inference.config import Config  # noqa: E402
from clawos.inference.dialects.constraint import Constraints, choose  # noqa: E402
from clawos.inference.dialects.markers import MARKERS  # noqa: E402
from clawos.inference.engine import Engine, Job  # noqa: E402
from clawos.inference.model import Model  # noqa: E402
from clawos.inference.sampling import Sampler  # noqa: E402
from clawos.inference.session import Session  # noqa: E402

BUILTIN = ROOT / "qa" / "model" / "builtin.gguf"
TOOLS = 40
VOCABULARY = 150_000
ROUNDS = 5
REQUESTS = (
    "how much memory is free?",
    "show the last 20 lines of the journal of ssh.service",
    "which processes use the most memory?",
    "what time is it?",
    "find files named notes.txt in my home",
    "restart cron.service",
)


Pick = Callable[[Session, Sampler], int]


def catalogue(count: int) -> list[Tool]:
    """The tools of the image, again under other names until there are enough."""
    manifests = [tomllib.loads(p.read_text()) for p in sorted((ROOT / "policies" / "tools").glob("*.toml"))]
    tools = []
    for at in range(count):
        m = manifests[at % len(manifests)]
        name = m["name"] if at < len(manifests) else f"{m['name']}{at}"
        tools.append(
            Tool(name=name, description=m["description"], parameters=m["arguments"], verbs=m.get("verbs", []))
        )
    return tools


@contextmanager
def opened(path: Path, threads: int, context: int) -> Iterator[Session]:
    model = Model(path, path.stem)
    session = Session(model, context, threads)
    try:
        yield session
    finally:
        session.close()
        model.close()


def llama_bench(path: Path, threads: int, tokens: int, rounds: int) -> float:
    """Tokens a second by llama.cpp's own bench: it computes tokens and neither chooses nor writes any."""
    program = subprocess.run(
        [ROOT / "image" / "tools" / "llama", "bench"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    command = [
        program,
        "-m",
        str(path),
        "-p",
        "0",
        "-n",
        str(tokens),
        "-r",
        str(rounds),
        "-t",
        str(threads),
        "-o",
        "json",
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return float(max(rows[0]["samples_ts"]))


def ours(path: Path, threads: int, tokens: int, rounds: int, pick: Pick) -> float:
    """Tokens a second of our loop: compute, choose the best, take its text."""
    rates = []
    with opened(path, threads, 512) as session:
        sampler = Sampler(temperature=0, seed=0)
        for _ in range(rounds + 1):
            session.read([1, 2])
            begun = time.perf_counter()
            for _ in range(tokens):
                token = pick(session, sampler)
                session.model.piece(token)
                session.push(token)
            rates.append(tokens / (time.perf_counter() - begun))
        sampler.close()
    return max(rates[1:])


def speed(path: Path, threads: int, tokens: int, rounds: int, pick: Pick) -> dict[str, float]:
    """Both in turn, three times, and the best of many short rounds of each: other work disturbs the rest."""
    mine, theirs = [], []
    for _ in range(3):
        theirs.append(llama_bench(path, threads, tokens, rounds))
        mine.append(ours(path, threads, tokens, rounds, pick))
    return {
        "tokens_per_s": round(max(mine), 1),
        "llama_bench_tokens_per_s": round(max(theirs), 1),
        "ratio": round(max(mine) / max(theirs), 3),
    }


async def builtin(config: Config) -> dict[str, Any]:
    """Whole answers of the built-in model, through the engine."""
    engine = Engine(config)
    load_s = await engine.load("builtin", BUILTIN)
    tools = catalogue(len(list((ROOT / "policies" / "tools").glob("*.toml"))))
    whole = []

    def ignore(_: Event) -> None:
        return

    for at in range(ROUNDS):
        for text in REQUESTS:
            job = Job(ChatRequest(messages=[Message(role="user", content=text)], tools=tools))
            begun = time.perf_counter()
            await engine.generate(job, ignore, 0)
            if at:  # the first round warms the caches
                whole.append(time.perf_counter() - begun)
    await engine.close()
    return {
        "load_ms": round(load_s * 1e3, 1),
        "request_to_call_ms": {
            "p50": round(statistics.median(whole) * 1e3, 1),
            "max": round(max(whole) * 1e3, 1),
        },
    }


def large_vocabulary(path: Path, threads: int) -> dict[str, Any]:
    """A call over a large vocabulary with many tools: the mask's cost for each token."""
    tools = catalogue(TOOLS)
    times: list[float] = []
    with opened(path, threads, 512) as session:
        constraints = Constraints(session.model)
        begun = time.perf_counter()
        constraints.prepare()
        tokenizer_s = time.perf_counter() - begun
        begun = time.perf_counter()
        constraints.begin(tools, MARKERS[0])
        compile_s = time.perf_counter() - begun
        for seed in range(6):
            sampler = Sampler(temperature=1, seed=seed)
            constraint = constraints.begin(tools, MARKERS[0])
            session.read([1, 2])
            for _ in range(80):
                begun = time.perf_counter()
                constraint.mask(session)
                masked = time.perf_counter() - begun
                token = sampler.pick(session)
                begun = time.perf_counter()
                if session.model.ends(token):
                    break
                constraint.take(token)
                times.append(masked + time.perf_counter() - begun)
                session.push(token)
            sampler.close()
    times.sort()
    return {
        "vocabulary": VOCABULARY,
        "tools": TOOLS,
        "tokens": len(times),
        "tokenizer_s": round(tokenizer_s, 2),
        "compile_ms": round(compile_s * 1e3, 1),
        "grammar_ms_per_token": round(statistics.fmean(times) * 1e3, 3),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1e3, 3),
    }


def measure() -> dict[str, Any]:
    config = Config(builtin=BUILTIN)
    threads = config.thread_count()
    with tempfile.TemporaryDirectory() as name:
        large = tinymodel.write(
            Path(name) / "large.gguf", extra_tokens=VOCABULARY - 260, width=256, layers=4, context=512
        )
        small = tinymodel.write(
            Path(name) / "small.gguf", extra_tokens=3836, width=256, layers=4, context=512
        )
        return {
            "threads": threads,
            "builtin": asyncio.run(builtin(config)),
            "small": speed(small, threads, 64, 40, choose),
            "large_vocabulary": {**large_vocabulary(large, threads), **speed(large, threads, 16, 3, choose)},
        }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
