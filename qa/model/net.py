"""The network in PyTorch: BERT as llama.cpp computes it, and two linear heads on its last states.

The encoder begins as all-MiniLM-L6-v2 (Apache-2.0), whose vocabulary is cut to the words that matter here.
Shapes: B requests, T tokens, W words, C labels of calls, S tags.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-12


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocab: int
    width: int = 384
    layers: int = 6
    heads: int = 12
    ffn: int = 1536
    positions: int = 512

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class Block(nn.Module):  # type: ignore[misc]
    """One layer, normalised after each of its halves."""

    def __init__(self, shape: Shape, drop: float) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.drop = shape.heads, drop
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.up = nn.Linear(width, shape.ffn)
        self.down = nn.Linear(shape.ffn, width)
        self.norm2 = nn.LayerNorm(width, EPSILON)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out: for requests of this length it takes half the time of PyTorch's fused attention.
        weights = (q @ k.transpose(-2, -1)) * (width // self.heads) ** -0.5 + mask
        mixed = weights.softmax(-1).to(v.dtype) @ v
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        x = self.norm1(x + functional.dropout(mixed, self.drop, self.training))
        # llama.cpp's GELU is the one with tanh.
        inner = self.down(functional.gelu(self.up(x), approximate="tanh"))
        return self.norm2(x + functional.dropout(inner, self.drop, self.training))


class Net(nn.Module):  # type: ignore[misc]
    """The encoder and its heads."""

    def __init__(self, shape: Shape, calls: int, tags: int, drop: float = 0.1) -> None:
        super().__init__()
        self.shape, self.drop = shape, drop
        self.words = nn.Embedding(shape.vocab, shape.width)
        self.positions = nn.Embedding(shape.positions, shape.width)
        self.kind = nn.Parameter(torch.zeros(shape.width))
        self.norm = nn.LayerNorm(shape.width, EPSILON)
        self.blocks = nn.ModuleList(Block(shape, drop) for _ in range(shape.layers))
        self.calls = nn.Linear(shape.width, calls)
        self.tags = nn.Linear(shape.width, tags)

    def states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) tokens and their numbers to (B, T, width)."""
        at = torch.arange(ids.shape[1])
        x = self.norm(self.words(ids) + self.positions(at) + self.kind)
        x = functional.dropout(x, self.drop, self.training)
        beyond = at[None, :] >= lengths[:, None]
        mask = torch.zeros(ids.shape).masked_fill(beyond, -1e9)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return x


def pretrained(folder: Path, keep: list[int], calls: int, tags: int, drop: float = 0.1) -> Net:
    """A network that begins as all-MiniLM-L6-v2 in `folder`, with the rows `keep` of its vocabulary.

    The heads and the places of the second and third call begin at random.
    """
    from safetensors.torch import load_file

    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    shape = Shape(
        len(keep),
        config["hidden_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["intermediate_size"],
        config["max_position_embeddings"],
    )
    net = Net(shape, calls, tags, drop)
    given = load_file(folder / "model.safetensors")
    state = {
        "words.weight": given["embeddings.word_embeddings.weight"][keep],
        "positions.weight": given["embeddings.position_embeddings.weight"],
        "kind": given["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": given["embeddings.LayerNorm.weight"],
        "norm.bias": given["embeddings.LayerNorm.bias"],
    }
    names = {
        "out": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for layer in range(shape.layers):
        theirs = f"encoder.layer.{layer}."
        for part in ("weight", "bias"):
            qkv = [given[f"{theirs}attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"blocks.{layer}.qkv.{part}"] = torch.cat(qkv)
            for ours, name in names.items():
                state[f"blocks.{layer}.{ours}.{part}"] = given[f"{theirs}{name}.{part}"]
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.split(".")[0] in ("calls", "tags") for name in missing), missing
    return net
