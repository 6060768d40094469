"""The network: a small Llama, laid out so that llama.cpp computes the same numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, silu


@dataclass(frozen=True)
class Shape:
    """Sizes. Each must be a multiple of 32 where Q8_0 cuts rows into blocks."""

    vocab: int = 4096
    width: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    ffn: int = 768
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


# Where types are checked, torch is not installed: hence the three remarks on nn.Module.
class Norm(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE over neighbouring pairs, as llama.cpp does it: no permutation of Q and K is needed on export."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, by hand: on a CPU and with requests this short the fused kernel is several times
    slower.
    """
    length, groups = q.shape[-2], q.shape[1] // k.shape[1]
    wide = q.unflatten(1, (-1, groups)).flatten(
        2, 3
    )  # the heads that share a K and V stand below one another
    scores = wide @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    hidden = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1).repeat(groups, 1)
    weights = scores.float().masked_fill(hidden, -torch.inf).softmax(-1).to(v.dtype)
    return (weights @ v).unflatten(2, (groups, length)).flatten(1, 2)


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        head = shape.width // shape.heads
        self.attn_norm = Norm(shape.width, shape.eps)
        self.q = nn.Linear(shape.width, shape.width, bias=False)
        self.k = nn.Linear(shape.width, shape.kv_heads * head, bias=False)
        self.v = nn.Linear(shape.width, shape.kv_heads * head, bias=False)
        self.o = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = Norm(shape.width, shape.eps)
        self.gate = nn.Linear(shape.width, shape.ffn, bias=False)
        self.up = nn.Linear(shape.width, shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, drop: float) -> Tensor:
        y = self.attn_norm(x)
        q = rotate(self.q(y).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2), cos, sin)
        k = rotate(self.k(y).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2), cos, sin)
        v = self.v(y).unflatten(-1, (self.shape.kv_heads, -1)).transpose(1, 2)
        a = attend(q, k, v)
        x = x + self.o(a.transpose(1, 2).flatten(-2))
        y = self.ffn_norm(x)
        return x + dropout(self.down(silu(self.gate(y)) * self.up(y)), drop, self.training)


class Net(nn.Module):  # type: ignore[misc]
    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, drop: float = 0.0) -> None:
        super().__init__()
        self.shape, self.drop = shape, drop
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.eps)
        head = shape.width // shape.heads
        angle = torch.arange(shape.context)[:, None] * shape.rope_base ** (-torch.arange(0, head, 2) / head)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                deep = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 if not deep else 0.02 / (2 * shape.layers) ** 0.5)

    def hidden(self, ids: Tensor) -> Tensor:
        """States before the output layer. Padding stands at the right end, where causal attention never
        looks.
        """
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        x = dropout(self.embed(ids), self.drop, self.training)
        for block in self.blocks:
            x = block(x, cos, sin, self.drop)
        return self.norm(x)

    def logits(self, states: Tensor) -> Tensor:
        return linear(states, self.embed.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))
