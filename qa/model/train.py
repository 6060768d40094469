"""Train the built-in model from a seed: python -m qa.model.train --out DIR. `make model` does both parts.

One CPU thread is enough. The run ends after --steps batches, and leaves weights.pt, tokenizer.json and
log.jsonl. The learning rate stays level for a share of the steps and then falls to zero, so a run that was
given --minutes instead can be repeated to the letter with the number of steps it reports.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor
from torch.nn import functional

from clawos.inference.builtin.dialect import ACT, DONE, END, USER
from qa.model.data import Stream
from qa.model.net import Net, Shape
from qa.model.tokens import learn

Row = tuple[list[int], int]


def rows(stream: Stream, tokenizer: Tokenizer, rough: Tokenizer, rng: random.Random) -> Iterator[Row]:
    """Examples as (tokens, where the answer begins). Some requests are cut into odd pieces, as misspelt
    words are.
    """
    end = tokenizer.token_to_id(END)
    for example in stream:
        cut = rough if rng.random() < 0.12 else tokenizer
        head = cut.encode(f"{USER} {example.text}{ACT}").ids
        if example.kind == "done":
            head.append(tokenizer.token_to_id(DONE))
            answer = []
        else:
            answer = tokenizer.encode(example.target).ids
        yield [*head, *answer, end], len(head)


def batches(seed: int, late: bool, tokenizer_file: Path, tokens: int, queue: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    """Fill the queue with batches of like length, about `tokens` tokens each."""
    rng = random.Random(seed + 1)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rough = Tokenizer.from_file(str(tokenizer_file))
    assert isinstance(rough.model, BPE)
    rough.model.dropout = 0.1
    source = rows(Stream(seed, late=late), tokenizer, rough, rng)
    while True:
        pool = sorted((next(source) for _ in range(8192)), key=lambda row: len(row[0]))
        made: list[list[Row]] = [[]]
        for row in pool:
            if made[-1] and (len(made[-1]) + 1) * len(row[0]) > tokens:
                made.append([])
            made[-1].append(row)
        rng.shuffle(made)
        for batch in made:
            queue.put(batch)


def tensors(batch: list[Row], pad: int) -> tuple[Tensor, Tensor]:
    """Inputs, and targets that are -100 everywhere but on the answer."""
    longest = max(len(ids) for ids, _ in batch)
    x = torch.full((len(batch), longest), pad)
    y = torch.full((len(batch), longest), -100)
    for i, (ids, start) in enumerate(batch):
        x[i, : len(ids)] = torch.tensor(ids)
        y[i, start - 1 : len(ids) - 1] = torch.tensor(ids[start:])
    return x, y


def vocabulary(seed: int, size: int, out: Path) -> Tokenizer:
    """Learn the vocabulary from the requests; values that mean nothing should not win whole tokens, so few
    are enough.
    """
    stream = iter(Stream(seed + 7))
    tokenizer = learn((f" {next(stream).text}" for _ in range(60_000)), size)
    tokenizer.save(str(out))
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--level", type=float, default=1.0, help="the share of the steps at the full rate")
    parser.add_argument("--start", type=Path, help="go on from the weights of this run")
    parser.add_argument("--late", action="store_true", help="with the phrases of corpus/late-*.txt")
    parser.add_argument("--minutes", type=float, help="find the number of steps that fits this time")
    parser.add_argument("--tokens", type=int, default=3072, help="tokens in a batch")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--drop", type=float, default=0.1)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--width", type=int, default=Shape.width)
    parser.add_argument("--ffn", type=int, default=Shape.ffn)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    shape = Shape(layers=options.layers, width=options.width, ffn=options.ffn)
    tokenizer_file = options.out / "tokenizer.json"
    net = Net(shape, options.drop)
    if options.start:
        shutil.copy(options.start / "tokenizer.json", tokenizer_file)
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        net.load_state_dict(torch.load(options.start / "weights.pt", weights_only=True)["weights"])
    else:
        tokenizer = vocabulary(options.seed, shape.vocab, tokenizer_file)
    size = sum(parameter.numel() for parameter in net.parameters())
    print(f"{size / 1e6:.2f} M parameters, {tokenizer.get_vocab_size()} tokens", flush=True)

    # Muon for the matrices of the blocks learns to copy from far fewer examples; AdamW for the rest.
    matrices = [p for p in net.blocks.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if not any(p is matrix for matrix in matrices)]
    optimisers = [
        torch.optim.Muon(matrices, lr=options.rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]

    # Spawned, not forked: torch's threads do not survive a fork. One producer keeps the order of batches
    # fixed.
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(64)
    args = (options.seed, options.late, tokenizer_file, options.tokens, queue)
    producer = context.Process(target=batches, args=args, daemon=True)
    producer.start()

    log = (options.out / "log.jsonl").open("w")
    pad = tokenizer.token_to_id("⟨pad⟩")
    began, seen, read, total, right = time.monotonic(), 0, 0, 0.0, 0.0
    net.train()
    steps = options.steps if options.minutes is None else None
    warm = 50 if options.start else 200
    step = 0
    while steps is None or step < steps:
        step += 1
        if steps is None and time.monotonic() - began > 60 * options.minutes * options.level:
            steps = math.ceil((step - 1) / options.level)
            print(f"to repeat this run: --steps {steps}", flush=True)
        level = math.floor(options.level * steps + 1e-6) if steps is not None else step
        fall = 1.0 if steps is None or step <= level else (steps - step) / (steps - level)
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = options.rate * min(1.0, step / warm) * max(fall, 0.01)
        batch = queue.get()
        x, y = tensors(batch, pad)
        with torch.autocast("cpu", torch.bfloat16):
            states = net.hidden(x)
            wanted = y != -100
            logits = net.logits(states[wanted])
        loss = functional.cross_entropy(logits.float(), y[wanted])
        net.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        seen += len(batch)
        read += sum(len(ids) for ids, _ in batch)
        total += loss.item()
        right += (logits.argmax(-1) == y[wanted]).float().mean().item()
        if step % 50 == 0:
            line = {
                "step": step, "examples": seen, "tokens": read, "loss": round(total / 50, 4),
                "accuracy": round(right / 50, 4), "seconds": round(time.monotonic() - began, 1),
            }  # fmt: skip
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            total = right = 0.0
        if step % 100 == 0 or step == steps:
            saved = {
                "shape": shape.as_dict(),
                "weights": net.state_dict(),
                "seed": options.seed,
                "steps": step,
            }
            torch.save(saved, options.out / "weights.pt")
    producer.terminate()


if __name__ == "__main__":
    main()
