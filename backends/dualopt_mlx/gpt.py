"""The GPT of `dualopt.workload.model` as MLX modules; `dualopt_torch.gpt` is its twin, line by line.

Attention and norms are written out instead of calling fused kernels: the two frameworks then round
alike, and a difference between two runs comes from the optimizer.
"""

# mlx.nn has neither annotations nor explicit exports:
# mypy: disable-error-code="attr-defined,name-defined,misc,no-any-return,no-untyped-call"

from __future__ import annotations

import math
from collections.abc import Mapping

import mlx.core as mx
from mlx import nn

from dualopt.workload.model import EPSILON, Floats, GPTConfig, causal_mask, rotary


def normalised(x: mx.array) -> mx.array:
    """x / sqrt(mean(x²) + EPSILON) over the last axis."""
    return x * mx.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = mx.ones(width)

    def __call__(self, x: mx.array) -> mx.array:
        return self.weight * normalised(x)


class Attention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads, self.head_width, self.qk_norm = config.heads, config.head_width, config.qk_norm
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, config.width, bias=False)
        self.v = nn.Linear(config.width, config.width, bias=False)
        self.o = nn.Linear(config.width, config.width, bias=False)
        self._cos, self._sin = map(mx.array, rotary(config))  # the underscore: no parameters
        self._mask = mx.array(causal_mask(config))

    def __call__(self, x: mx.array) -> mx.array:
        length = x.shape[1]
        q, k, v = (self._split(linear(x)) for linear in (self.q, self.k, self.v))
        if self.qk_norm:
            q, k = normalised(q), normalised(k)
        q, k = self._rotated(q), self._rotated(k)
        scores = q @ k.swapaxes(-1, -2) * (1.0 / math.sqrt(self.head_width)) + self._mask[:length, :length]
        mixed = mx.softmax(scores, axis=-1) @ v
        return self.o(mixed.swapaxes(1, 2).reshape(x.shape))

    def _split(self, x: mx.array) -> mx.array:
        """(batch, length, width) -> (batch, heads, length, head_width)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_width).swapaxes(1, 2)

    def _rotated(self, x: mx.array) -> mx.array:
        cos, sin = self._cos[: x.shape[2]], self._sin[: x.shape[2]]
        half = self.head_width // 2
        a, b = x[..., :half], x[..., half:]
        return mx.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class FeedForward(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        gate = self.gate(x)
        return self.down(gate * mx.sigmoid(gate) * self.up(x))


class Block(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config)
        self.feed_norm = RMSNorm(config.width)
        self.feed = FeedForward(config)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed(self.feed_norm(x))


class GPT(nn.Module):
    """tokens (batch, length <= context), integers -> logits (batch, length, vocabulary), float32.

    ``values``: the initial parameters by name, as `dualopt.workload.model.initial` makes them.
    """

    def __init__(self, config: GPTConfig, values: Mapping[str, Floats]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.norm = RMSNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.load_weights([(name, mx.array(value)) for name, value in values.items()])

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def loss(model: GPT, inputs: mx.array, targets: mx.array) -> mx.array:
    """Mean cross-entropy in nats, 0-d; inputs and targets (batch, length), integers."""
    return nn.losses.cross_entropy(model(inputs), targets, reduction="mean")
