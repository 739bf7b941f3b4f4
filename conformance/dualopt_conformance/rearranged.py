"""The formulas of the core written differently: what the table of legitimate rewrites is written with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualopt.directions.elementwise import Rms
from dualopt.directions.norm_balls import MATRIX, SpectralBall
from dualopt.directions.polar import SETS
from dualopt.exact import Overlay
from dualopt.memory import Memories, Readout
from dualopt.motion import Targeted
from dualopt.scaling import unit
from dualopt.shrink import Cautious
from dualopt.signal import AMBIENT
from dualopt.views import View

from .alterations import EXACT, Array, Maker, altered, rewired
from .walk import Arrays


def fused(x: Any, y: Array, z: Array) -> Array:
    """x y + z with one rounding.

    The product of two float32 numbers is exact in float64. The sum is rounded to float64 first and then to
    float32, which differs from one rounding only within 2^-30 of an ulp of a tie.
    """
    wide = np.asarray(x, np.float32).astype(np.float64) * y.astype(np.float64) + z
    return np.asarray(wide, np.float32)


def folding(blended: Callable[[Array, Array, float], Array]) -> Maker:
    """Both memories by another blend of (x, y, c)."""

    def fold(self: Memories, xp: Any, state: Arrays, g: Arrays, k: Any) -> Arrays:
        x, s = g[AMBIENT], {}
        if self.first:
            s["m"] = blended(state["m"], x, k["c_m"])
        if self.second:
            s["v"] = blended(state["v"], x * x, k["c_v"])
        return s

    return altered(rewired(Memories, __call__=fold))


def fused_squares(self: Memories, xp: Any, state: Arrays, g: Arrays, k: Any) -> Arrays:
    """v + c (g g − v) with g g never rounded."""
    s = Memories.__call__(self, xp, dict(state), dict(g), k)
    return {**s, "v": fused(k["c_v"], fused(g[AMBIENT], g[AMBIENT], -state["v"]), state["v"])}


def textbook_readout(self: Readout, xp: Any, s: Arrays, g: Array, k: Any) -> Array:
    """μ m + (1 − μ) g."""
    z = (1 - k["c_mu"]) * s["m"] + k["c_mu"] * g
    return np.asarray(k["r_m"] * z if self.corrected else z)


def split_root(self: Rms, xp: Any, z: Array, s: Arrays, k: Any) -> Array:
    """√v √r_v + ε."""
    return np.asarray(-z / (xp.sqrt(s["v"]) * math.sqrt(k["r_v"] if self.corrected else 1.0) + k["eps"]))


def rough_root(x: Array) -> Array:
    """A root of which a quarter is an ulp too large, and another too small."""
    root = np.asarray(np.sqrt(x))
    bits = (root.view(np.uint32) * np.uint32(2654435761)) >> 30  # Knuth's multiplicative hash
    up, down = (np.nextafter(root, np.float32(end)) for end in (np.inf, 0))
    return np.where(root == 0, root, np.where(bits == 0, up, np.where(bits == 1, down, root)))


def masked_by_signs(self: Cautious, xp: Any, theta: Array, u: Array, k: Any) -> Array:
    """The mask of the product, whose factors cannot underflow."""
    return np.where(np.sign(u) * np.sign(theta) <= 0, k["c_a"] * theta, np.zeros_like(theta))


def summed(last: Callable[[Array], Any]) -> Maker:
    """Sums by `last`, which sums over the last axis."""

    def total(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        gone = [i % x.ndim for i in axes]
        kept = [i for i in range(x.ndim) if i not in gone]
        flat = np.transpose(x, (*kept, *gone)).reshape((*(x.shape[i] for i in kept), -1))
        found = np.asarray(last(flat), np.float32)
        return np.reshape(found, [1 if i in gone else n for i, n in enumerate(x.shape)]) if keepdims else found

    return altered(xp=Overlay(EXACT, "summed", sum=total))


def blocks(x: Array) -> Array:
    """Eight interleaved sums, added at last: as vector units do."""
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], -x.shape[-1] % 8), np.float32)], axis=-1)
    lanes = padded.reshape((*x.shape[:-1], -1, 8))
    return np.asarray(np.cumsum(np.cumsum(lanes, axis=-2)[..., -1, :], axis=-1)[..., -1])


def multiplied(by: Callable[[Array, Array], Array]) -> Maker:
    """Other matrix products."""
    return altered(xp=Overlay(EXACT, "multiplied", matmul=by))


def wide_product(a: Array, b: Array) -> Array:
    """A B in float64, rounded once."""
    return np.asarray(np.matmul(a, b, dtype=np.float64), np.float32)


def iterated(step: Callable[[Array, float, float, float], Array]) -> Maker:
    """Newton-Schulz with x+ of (x, a, b, c) in another arrangement."""

    def iterate(self: SpectralBall, xp: Any, z: Array) -> Array:
        chosen = SETS[self.method]
        x: Array = unit(xp, z, MATRIX) * (1 / chosen.safety)
        for a, b, c in chosen.steps:
            x = step(x, a, b, c)
        return x

    return altered(rewired(SpectralBall, atom=iterate))


def other_side(x: Array, a: float, b: float, c: float) -> Array:
    """a x + x (b G + c G²) of a wide x, (b G + c G²) x of a tall one: G is the larger of the two Gram matrices."""
    if x.shape[-2] > x.shape[-1]:
        return np.matrix_transpose(other_side(np.matrix_transpose(x), a, b, c))
    gram = np.matmul(np.matrix_transpose(x), x)
    return np.asarray(a * x + np.matmul(x, b * gram + c * np.matmul(gram, gram)))


def polynomial_first(x: Array, a: float, b: float, c: float) -> Array:
    """(a I + A (b I + c A)) x, A = x xᵀ the smaller Gram matrix."""
    if x.shape[-2] > x.shape[-1]:
        return np.matrix_transpose(polynomial_first(np.matrix_transpose(x), a, b, c))
    gram = np.matmul(x, np.matrix_transpose(x))
    one = np.eye(gram.shape[-1], dtype=np.float32)
    return np.asarray(np.matmul(a * one + np.matmul(gram, b * one + c * gram), x))


def divided(z: Array, axes: Any) -> Array:
    """z / ‖z‖ of z over its largest entry; 0 for 0."""
    for measure in (lambda x: np.max(np.abs(x), axis=axes, keepdims=True), lambda x: _length(x, axes)):
        size = measure(z)
        z = z / np.where(size > 0, size, np.ones_like(size))
    return z


def _length(x: Array, axes: Any) -> Array:
    return np.asarray(np.sqrt(np.sum(x * x, axis=axes, keepdims=True)))


def other_root(self: Targeted, xp: Any, k: Any) -> Any:
    """The positive root of too small weights as −excess/(σ + √D), which does not cancel where σ > 0."""
    sigma, excess = k["sum_wu"], k["excess"]
    if not (sigma > 0 and excess < 0):
        return Targeted.solve(self, xp, k)
    found = -excess / (sigma + np.sqrt(sigma * sigma - k["sum_uu"] * excess))
    return np.minimum(found, np.float32(k["eta"]))


class Reordered(View):
    """A kernel flattened as (out, *k, in), there and back: the columns of its matrix in another order."""

    def apply(self, xp: Any, x: Array) -> Array:
        return np.asarray(xp.reshape(xp.permute_dims(x, self._order), self.seen))

    def undo(self, xp: Any, x: Array) -> Array:
        back = [self._order.index(i) for i in range(len(self._order))]
        return np.asarray(xp.permute_dims(xp.reshape(x, [self.stored[i] for i in self._order]), back))

    @property
    def _order(self) -> tuple[int, ...]:
        return (0, *range(2, len(self.stored)), 1)


def reordered(v: View) -> View:
    """`Reordered` if it is a kernel."""
    return Reordered(v.stored, v.axes, v.logical, v.seen, v.portable) if len(v.stored) > len(v.seen) else v


def narrowed(theta: Array, s: Arrays) -> tuple[Array, Arrays]:
    """All that goes out, rounded to float32."""
    return np.asarray(theta, np.float32), {key: np.asarray(x, np.float32) for key, x in s.items()}


def flushed(x: Array) -> Array:
    """Subnormal numbers as zeros of their sign."""
    return np.where(np.abs(x) < np.float32(2.0**-126), x * np.float32(0), x)
