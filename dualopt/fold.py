"""Many gradients of one update: from a stream of microbatches to the evidence of the recursion.

    evidence = done(… add(add(start, g_1), g_2) …)          one pass
    evidence = done(… again(turn(…), g_1) …)                two: what reads ḡ while it sees g_j

A microbatch is one draw of the gradient; all weigh the same. A fold keeps running moments, so its memory does
not grow with their number m. It reads the memories *before* the update and the scalars k *of* it: what the
preconditioner would be had g_j been the gradient. The index of a microbatch is a number of the host.

Moments run in the forms that add differences: the mean of equal gradients is that gradient to the bit, and
the deviation of equal numbers is 0. A deviation, not its square, is kept: squares of squares of 1e10 are
no float32 numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .recursion import Array, Arrays, Namespace, Scalars


def hypot(xp: Namespace, a: Array, b: Array) -> Array:
    """√(a² + b²) for a, b >= 0, without squaring either."""
    large = xp.where(a > b, a, b)
    small = xp.where(a > b, b, a)
    t = small / xp.where(large > 0, large, xp.ones_like(large))
    return large * xp.sqrt(xp.ones_like(t) + t * t)


def mean(old: Array, x: Array, j: int) -> Array:
    """The mean of x_0 ... x_j from that of x_0 ... x_{j−1}: scaled first, so that no difference overflows."""
    c = 1 / (j + 1)
    return old + (c * x - c * old)


def moments(xp: Namespace, middle: Array, spread: Array, x: Array, j: int) -> tuple[Array, Array]:
    """(mean, deviation) of x_0 ... x_j from those of x_0 ... x_{j−1} (Welford).

    The deviation is √(Σ (x_i − x̄)² / (j + 1)): the mean square is j/(j+1) of the old one plus j/(j+1)² of
    the new difference's.
    """
    further = xp.abs(x - middle)
    return mean(middle, x, j), hypot(xp, math.sqrt(j / (j + 1)) * spread, (math.sqrt(j) / (j + 1)) * further)


def standard_error(spread: Array, count: int) -> Array:
    """√Var(x̄), the estimate Σ (x − x̄)² / (m (m − 1)) of the variance of a mean, from the deviation of m ≥ 2."""
    return (1 / math.sqrt(count - 1)) * spread


def group(j: int) -> tuple[str, int]:
    """(group, index within it) of microbatch j: even ones are A, odd ones B, as they come."""
    return ("b" if j % 2 else "a"), j // 2


@dataclass(frozen=True)
class Fold:
    """What a row makes of the microbatches of one stream.

    Attributes:
        passes: how often the stream is read.
        least: microbatches that it needs.
        apart: evidence that does not have the shape of θ.
    """

    passes: ClassVar[int] = 1
    least: ClassVar[int] = 1
    apart: ClassVar[tuple[str, ...]] = ()

    def start(self, xp: Namespace, zero: Array) -> Arrays:
        """The accumulators; `zero` is 0 in the shape of θ as the row sees it."""
        raise NotImplementedError

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        """The accumulators with microbatch j, counted from 0."""
        raise NotImplementedError

    def turn(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        """Between two passes over `count` microbatches."""
        return acc

    def again(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int, count: int) -> Arrays:
        """The accumulators with microbatch j of the second pass."""
        raise NotImplementedError

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        """The evidence: "gradient", which enters the memory, and what else the row reads."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mean(Fold):
    """ḡ, what every row reads that knows of no microbatches: accumulation of gradients."""

    name: str = "gradient"

    def start(self, xp: Namespace, zero: Array) -> Arrays:
        return {self.name: zero}

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        return {self.name: mean(acc[self.name], g, j)}

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        return acc
