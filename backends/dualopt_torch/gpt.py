"""The GPT of `dualopt.workload.model` as torch modules; `dualopt_mlx.gpt` is its twin, line by line.

Attention and norms are written out instead of calling fused kernels: the two frameworks then round
alike, and a difference between two runs comes from the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dualopt.workload.model import EPSILON, Floats, GPTConfig, causal_mask, rotary


def normalised(x: Tensor) -> Tensor:
    """x / sqrt(mean(x²) + EPSILON) over the last axis."""
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPSILON)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * normalised(x)


class Attention(nn.Module):
    cos: Tensor
    sin: Tensor
    mask: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads, self.head_width, self.qk_norm = config.heads, config.head_width, config.qk_norm
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, config.width, bias=False)
        self.v = nn.Linear(config.width, config.width, bias=False)
        self.o = nn.Linear(config.width, config.width, bias=False)
        cos, sin = rotary(config)
        self.register_buffer("cos", torch.from_numpy(cos), persistent=False)
        self.register_buffer("sin", torch.from_numpy(sin), persistent=False)
        self.register_buffer("mask", torch.from_numpy(causal_mask(config)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        q, k, v = (self._split(linear(x)) for linear in (self.q, self.k, self.v))
        if self.qk_norm:
            q, k = normalised(q), normalised(k)
        q, k = self._rotated(q), self._rotated(k)
        scores = q @ k.mT * (1.0 / math.sqrt(self.head_width)) + self.mask[:length, :length]
        mixed = torch.softmax(scores, dim=-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, heads, length, head_width)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_width).transpose(1, 2)

    def _rotated(self, x: Tensor) -> Tensor:
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        half = self.head_width // 2
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class FeedForward(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return self.down(gate * torch.sigmoid(gate) * self.up(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config)
        self.feed_norm = RMSNorm(config.width)
        self.feed = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed(self.feed_norm(x))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """tokens (batch, length <= context), integers -> logits (batch, length, vocabulary), float32.

    ``values``: the initial parameters by name, as `dualopt.workload.model.initial` makes them.
    """

    def __init__(self, config: GPTConfig, values: Mapping[str, Floats]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()})

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def loss(model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats, 0-d; inputs and targets (batch, length), integers."""
    return nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
