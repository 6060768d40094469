"""Train the built-in model from a seed: python -m qa.model.train --out DIR --base FOLDER.

`make model` calls it. One CPU thread is enough. It leaves weights.pt and log.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from clawos.inference.builtin.labels import NONE, OUTSIDE
from clawos.inference.builtin.split import words
from qa.model.corpus import catalogue
from qa.model.corrections import read as read_corrections
from qa.model.data import SLOTS, Example, Stream
from qa.model.net import Net, Shape, pretrained
from qa.model.tokens import Encoder, cut, read

TAGS = (OUTSIDE, *(f"{place}-{slot}" for slot in SLOTS for place in "BI"))
IGNORE = -100
LENGTHS = (12, 16, 20, 24, 32, 48, 64, 128)
Row = tuple[list[int], list[int], list[int], list[int]]
"""Tokens, labels of the three calls, places of the words, tags of the words."""


def labels(seed: int, count: int = 120_000) -> list[str]:
    """Every label that the stream gives more than once in `count` examples, most frequent last."""
    seen: dict[str, int] = {}
    for example in islice(Stream(seed + 11), count):
        for label in example.reading.labels:
            seen[label] = seen.get(label, 0) + 1
    return [NONE, *sorted(label for label, n in seen.items() if n > 2)]


def row(example: Example, encoder: Encoder, number: dict[str, int]) -> Row | None:
    """An example as numbers; None if it has a label that is too rare."""
    ids, places = encoder.encode(example.text, example.before)
    wanted = [number.get(label, -1) for label in example.reading.labels]
    if min(wanted) < 0:
        return None
    wanted += [0] * (3 - len(wanted))
    tags = []
    for word in words(example.text):
        tag = 0
        for span in example.reading.spans:
            if span.start <= word.start < span.end or word.start <= span.start < word.end:
                begins = word.start <= span.start < word.end or word.start == span.start
                tag = 1 + 2 * SLOTS.index(span.slot) + (0 if begins else 1)
        tags.append(tag)
    keep = [i for i, place in enumerate(places) if place >= 0]
    return ids, wanted, [places[i] for i in keep], [tags[i] for i in keep]


def batches(
    stream: Stream, encoder: Encoder, number: dict[str, int], tokens: int
) -> Iterator[tuple[int, list[Row]]]:
    """Batches of about `tokens` tokens, with the length to fill them up to.

    There are few lengths: oneDNN compiles its kernels anew for each shape, which takes longer than a batch.
    """
    waiting: dict[int, list[Row]] = {length: [] for length in LENGTHS}
    for example in stream:
        made = row(example, encoder, number)
        length = next((size for size in LENGTHS if made and len(made[0]) <= size), None)
        if made is None or length is None:
            continue
        waiting[length].append(made)
        if len(waiting[length]) == tokens // length:
            yield length, waiting[length]
            waiting[length] = []


def loss_of(net: Net, length: int, batch: list[Row]) -> tuple[Tensor, float, float]:
    """The loss of a batch, and the shares of calls and of tags that are right."""
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    tags = torch.full((len(batch), length), IGNORE)
    for i, (tokens, _, places, tagged) in enumerate(batch):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        tags[i, places] = torch.tensor(tagged)
    lengths = torch.tensor([len(tokens) for tokens, *_ in batch])
    calls = torch.tensor([wanted for _, wanted, _, _ in batch])
    with torch.autocast("cpu", torch.bfloat16):
        states = net.states(ids, lengths)
        call_logits = net.calls(states[:, :3]).float()
        tag_logits = net.tags(states).float()
    call_loss = functional.cross_entropy(call_logits.flatten(0, 1), calls.flatten(), reduction="none")
    # The first call is the one that most requests are about.
    weight = torch.tensor([1.0, 0.5, 0.25])
    call_loss = (call_loss.view(-1, 3) * weight).sum(-1).mean()
    tag_loss = functional.cross_entropy(tag_logits.flatten(0, 1), tags.flatten(), ignore_index=IGNORE)
    right = (call_logits.argmax(-1) == calls).all(-1).float().mean().item()
    wanted = tags != IGNORE
    tagged_right = (tag_logits.argmax(-1)[wanted] == tags[wanted]).float().mean().item()
    return call_loss + 2.0 * tag_loss, right, tagged_right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1700)
    parser.add_argument("--tokens", type=int, default=3072, help="tokens in a batch")
    parser.add_argument("--rate", type=float, default=3e-4, help="highest learning rate")
    parser.add_argument("--drop", type=float, default=0.1)
    parser.add_argument("--vocab", type=int, default=9500)
    parser.add_argument("--start", type=Path, help="go on from the weights of this run")
    parser.add_argument("--corrections", type=Path, help="what a user put right, as clawsh keeps it")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    # Every seed begins with the same numbers, so that the weights of several can be averaged.
    torch.manual_seed(0)
    if options.start:
        saved = torch.load(options.start / "weights.pt", weights_only=True)
        names, vocabulary = saved["labels"], saved["vocabulary"]
        net = Net(Shape(**saved["shape"]), len(names), len(TAGS), options.drop)
        net.load_state_dict(saved["weights"])
    else:
        names = labels(1)
        texts = (example.text for example in islice(Stream(12), 60_000))
        vocabulary, rows = cut(read(options.base), texts, options.vocab)
        net = pretrained(options.base, rows, len(names), len(TAGS), options.drop)
    torch.manual_seed(options.seed)
    number = {label: i for i, label in enumerate(names)}
    encoder = Encoder(vocabulary)
    size = sum(parameter.numel() for parameter in net.parameters())
    print(f"{size / 1e6:.2f} M parameters, {len(vocabulary)} tokens, {len(names)} labels", flush=True)

    decayed = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}],
        lr=options.rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    log = (options.out / "log.jsonl").open("w")
    tools = {tool.name: tool for tool in catalogue()}
    more = read_corrections(options.corrections, tools) if options.corrections else ()
    source = batches(Stream(options.seed, more=more), encoder, number, options.tokens)
    began, seen, sums = time.monotonic(), 0, [0.0, 0.0, 0.0]
    warm = max(1, options.steps // 20)
    net.train()
    for step in range(1, options.steps + 1):
        share = min(step / warm, (options.steps - step + 1) / (options.steps - warm + 1))
        for group in optimiser.param_groups:
            group["lr"] = options.rate * share
        length, batch = next(source)
        loss, right, tagged = loss_of(net, length, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        seen += len(batch)
        sums = [a + b for a, b in zip(sums, (loss.item(), right, tagged), strict=True)]
        if step % 50 == 0:
            line = {
                "step": step, "examples": seen, "loss": round(sums[0] / 50, 4),
                "calls": round(sums[1] / 50, 4), "tags": round(sums[2] / 50, 4),
                "seconds": round(time.monotonic() - began, 1),
            }  # fmt: skip
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            sums = [0.0, 0.0, 0.0]
        if step % 500 == 0 or step == options.steps:
            saved = {
                "shape": net.shape.as_dict(), "weights": net.state_dict(), "vocabulary": vocabulary,
                "labels": names, "tags": list(TAGS), "seed": options.seed, "steps": step, "examples": seen,
            }  # fmt: skip
            torch.save(saved, options.out / "weights.pt")


if __name__ == "__main__":
    main()
