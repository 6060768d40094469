"""Another design that was tried: all-MiniLM-L6-v2 as it is, a linear classifier on its sentence embedding.

python -m qa.model.frozen --base FOLDER, in the environment of `make model`. It prints the share of right
tools, which is what meaning alone can give; the tuned encoder's are in CARD.md.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from clawos.inference.builtin.labels import CallLabel, is_call
from qa.model.data import Stream
from qa.model.net import Net, pretrained
from qa.model.paths import HERE
from qa.model.tokens import Encoder, read


def embed(net: Net, encoder: Encoder, texts: list[str]) -> Tensor:
    """Mean of the states, of length 1: (N, width)."""
    out = []
    for at in range(0, len(texts), 64):
        coded = [encoder.encode(text.lower())[0] for text in texts[at : at + 64]]
        # As in its own training: no places for calls.
        coded = [[ids[0], *ids[3:]][:128] for ids in coded]
        lengths = torch.tensor([len(ids) for ids in coded])
        ids = torch.zeros(len(coded), 128, dtype=torch.long)
        for i, row in enumerate(coded):
            ids[i, : len(row)] = torch.tensor(row)
        longest = int(lengths.max())
        with torch.no_grad():
            states = net.states(ids[:, :longest], lengths)
        kept = (torch.arange(longest) < lengths[:, None])[..., None]
        out.append(functional.normalize((states * kept).sum(1) / lengths[:, None]))
    return torch.cat(out)


def tool_of(label: str) -> str:
    return CallLabel.parse(label).tool if is_call(label) else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--examples", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    vocabulary = read(options.base)
    for name, spare in (("[call2]", "[unused1]"), ("[call3]", "[unused2]")):
        vocabulary[vocabulary.index(spare)] = name
    net = pretrained(options.base, list(range(len(vocabulary))), 1, 1).eval()
    encoder = Encoder(vocabulary)
    seen = [example for example in islice(Stream(3), options.examples) if not example.before]
    names = sorted({tool_of(example.reading.labels[0]) for example in seen})
    x = embed(net, encoder, [example.text for example in seen])
    y = torch.tensor([names.index(tool_of(example.reading.labels[0])) for example in seen])
    head = torch.nn.Linear(x.shape[1], len(names))
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.05)
    for _ in range(options.steps):
        batch = torch.randint(len(x), (2048,))
        loss = functional.cross_entropy(head(x[batch]), y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    sets: dict[str, list[bool]] = {}
    for path in sorted((HERE / "eval").glob("*.jsonl")):
        items = [json.loads(line) for line in path.read_text().splitlines()]
        items = [item for item in items if len(item["calls"]) < 2 and not item.get("before")]
        with torch.no_grad():
            best = head(embed(net, encoder, [item["text"] for item in items])).argmax(-1).tolist()
        for item, at in zip(items, best, strict=True):
            wanted = item["calls"][0]["tool"] if item["calls"] else "none"
            if item["kind"] in ("calls", "decline"):
                sets.setdefault(item["set"], []).append(names[at] == wanted)
    for name, right in sorted(sets.items()):
        print(f"{name:32} {len(right):4}  right {sum(right) / len(right):.3f}")


if __name__ == "__main__":
    main()
