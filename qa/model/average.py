"""Average the weights of several runs: python -m qa.model.average --out DIR RUN RUN…

Runs that began alike and saw other data end near enough to one another for the mean of their weights to be a
network too, often a better one than each (Wortsman et al. 2022, "Model soups").
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    saved = [torch.load(run / "weights.pt", weights_only=True) for run in options.runs]
    first = saved[0]
    if any(one[key] != first[key] for one in saved for key in ("shape", "vocabulary", "labels", "tags")):
        raise SystemExit("average: these runs have other labels or another vocabulary; train them anew")
    weights = {
        name: torch.stack([one["weights"][name].float() for one in saved]).mean(0)
        for name in first["weights"]
    }
    options.out.mkdir(parents=True, exist_ok=True)
    examples = sum(one["examples"] for one in saved)
    torch.save({**first, "weights": weights, "examples": examples}, options.out / "weights.pt")


if __name__ == "__main__":
    main()
