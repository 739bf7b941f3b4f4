"""The Lie algebra of rotations from both sides, W → E(X_out) W E(X_in) with skew X: its gradients.

For skew X the derivatives of f along W X and X W are

    <G, W X> = ½ <G_in, X>          G_in  = WᵀG − GᵀW    (..., n, n)
    <G, X W> = ½ <G_out, X>         G_out = GWᵀ − WGᵀ    (..., m, m)

so −G_in and −G_out descend. Both are P − Pᵀ of one product, and therefore skew to the bit, and what is made
of them elementwise by odd functions (memories, m/(√v + ε), signs) stays so.
Source: Pion (arXiv 2605.12492).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .part import Stage
from .recursion import Array, Arrays, Namespace, Scalars

IN, OUT = "in", "out"


def pair(xp: Namespace, w: Array, x: Array) -> Arrays:
    """{"in": WᵀX − XᵀW, "out": XWᵀ − WXᵀ} of W and X, both (..., m, n)."""
    p, q = xp.matmul(xp.matrix_transpose(w), x), xp.matmul(x, xp.matrix_transpose(w))
    return {IN: p - xp.matrix_transpose(p), OUT: q - xp.matrix_transpose(q)}


@dataclass(frozen=True)
class SkewPair(Stage):
    """g = (G_in, G_out): the gradient as the rates of rotation from the right and from the left."""

    local: ClassVar[bool] = False
    largest: ClassVar[float] = 2.0**55  # its products with a row of weights of sum 2⁸ can still be squared
    channels: ClassVar[tuple[str, ...]] = (IN, OUT)

    def zeros(self, xp: Namespace, theta: Array) -> Arrays:
        zero = xp.zeros_like(theta)
        row, column = (xp.sum(zero, axis=axis, keepdims=True) for axis in (-2, -1))
        return {IN: row + xp.matrix_transpose(row), OUT: column + xp.matrix_transpose(column)}

    def __call__(self, xp: Namespace, theta: Array, evidence: Arrays, k: Scalars) -> Arrays:
        return pair(xp, theta, evidence["gradient"])
