"""The small GPT that is trained twice: its names, shapes, initial values and rotary angles.

    x = embedding[token]
    for every block:
        q, k, v = heads of W norm(x)             three weights without bias
        x += W_o (softmax(mask + rot(q) rot(k)ᵀ / √d) v)
        x += W_down (silu(W_gate norm(x)) * W_up norm(x))
    logits = W_head norm(x)                      not tied to the embedding

``norm(x) = gain * x / sqrt(mean(x²) + EPSILON)`` over the width. With ``qk_norm`` every head of q and k
is normalised likewise, without a gain, before the rotation. rot turns the pair (x[i], x[i + d/2]) of
a head of d entries by the angle ``position * 10000^(-2i/d)``.

A backend writes this once more in its own modules; names and shapes are those of `parameter_shapes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from dualopt.errors import RecipeError
from dualopt.generator import Stream

EPSILON = 1e-5
_ROTARY_BASE = 10_000.0

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class GPTConfig:
    """The size of the model. ``hidden_multiple`` * ``width`` is the width inside a feed-forward block.

    Raises: RecipeError for a size that is not a positive integer or does not divide.
    """

    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 64
    vocabulary: int = 256
    hidden_multiple: int = 3
    qk_norm: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "qk_norm":
                if not isinstance(value, bool):
                    raise RecipeError(f"model: qk_norm must be true or false, not {value!r}")
            elif type(value) is not int or value < 1:
                raise RecipeError(f"model: {field.name} must be a positive integer, not {value!r}")
        if self.width % (2 * self.heads):
            raise RecipeError(
                f"model: width {self.width} must be a multiple of twice the {self.heads} heads, "
                "because rotary attention needs heads of an even width"
            )

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        return self.hidden_multiple * self.width


def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Dotted name -> shape, in the order of both frameworks' modules. Matrices are (outputs, inputs)."""
    width, hidden = config.width, config.hidden
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (config.vocabulary, width)}
    for layer in range(config.layers):
        block = f"blocks.{layer}"
        shapes[f"{block}.attention_norm.weight"] = (width,)
        for part in "qkvo":
            shapes[f"{block}.attention.{part}.weight"] = (width, width)
        shapes[f"{block}.feed_norm.weight"] = (width,)
        shapes[f"{block}.feed.gate.weight"] = (hidden, width)
        shapes[f"{block}.feed.up.weight"] = (hidden, width)
        shapes[f"{block}.feed.down.weight"] = (width, hidden)
    shapes["norm.weight"] = (width,)
    shapes["head.weight"] = (config.vocabulary, width)
    return shapes


def initial(config: GPTConfig, seed: int) -> dict[str, Floats]:
    """Initial values, float32, the same bits everywhere; a parameter depends on (seed, its name) alone.

    Gains are one, embeddings have variance 1, matrices are uniform in ±1/sqrt(inputs). No matrix is
    zero: a zero output projection would give the matrices before it a zero first gradient.
    """
    values: dict[str, Floats] = {}
    for name, shape in parameter_shapes(config).items():
        stream = Stream(seed, name)
        if len(shape) == 1:
            values[name] = np.ones(shape, np.float32)
        elif name == "embedding.weight":
            values[name] = stream.bell(shape)
        else:
            values[name] = stream.uniform(shape) * np.float32(1.0 / math.sqrt(shape[1]))
    return values


def rotary(config: GPTConfig) -> tuple[Floats, Floats]:
    """Cosine and sine of every angle, each float32 (context, head_width / 2)."""
    half = config.head_width // 2
    frequencies = _ROTARY_BASE ** (-np.arange(half, dtype=np.float64) / half)
    angles = np.arange(config.context, dtype=np.float64)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def causal_mask(config: GPTConfig) -> Floats:
    """float32 (context, context), added to the scores: 0 for the past and the present, else -inf."""
    return np.triu(np.full((config.context, config.context), -np.inf, np.float32), k=1)
