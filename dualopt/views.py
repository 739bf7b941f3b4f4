"""How a parameter is seen by its row: an array (..., m, n) of matrices with m outputs and n inputs.

    elementwise rows            as it is
    2 or more dimensions        the last two are the matrix, leading ones a stack of matrices
    orientation = "in_out"      the matrix is stored transposed (an embedding table: one row per token)
    norm = "spectral_conv"      a kernel (out, in, *k) as the matrix out × (in · k)
    vectors                     (n,); a 0-dimensional parameter is a vector of one

A view is pure data: a permutation of axes and a shape. It is applied to θ, g and every state array
alike, so state keeps the parameter's own shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .recursion import Array, Namespace, Shape

Layout = Literal["channels_first", "channels_last"]  # of convolution kernels: (out, in, *k) or (out, *k, in)
ORIENTATIONS = ("out_in", "in_out")


@dataclass(frozen=True)
class View:
    """`stored` is the parameter's shape, `logical` the shape that scales are computed from."""

    stored: Shape
    axes: tuple[int, ...]  # permutation of the stored axes
    logical: Shape  # stored, permuted (and () as (1,))
    seen: Shape  # what the row gets

    @property
    def size(self) -> int:
        return math.prod(self.stored)

    def apply(self, xp: Namespace, x: Array) -> Array:
        """x in the stored shape -> x as the row sees it."""
        if self.axes != tuple(range(len(self.stored))):
            x = xp.permute_dims(x, self.axes)
        return x if tuple(x.shape) == self.seen else xp.reshape(x, self.seen)

    def undo(self, xp: Namespace, x: Array) -> Array:
        """The inverse of `apply`."""
        permuted = tuple(self.stored[i] for i in self.axes)
        if tuple(x.shape) != permuted:
            x = xp.reshape(x, permuted)
        if self.axes == tuple(range(len(self.stored))):
            return x
        inverse = tuple(self.axes.index(i) for i in range(len(self.axes)))
        return xp.permute_dims(x, inverse)


def view(
    shape: Shape,
    *,
    least_ndim: int,
    conv: bool = False,
    orientation: str = "out_in",
    layout: str = "channels_first",
) -> View:
    """The view of a parameter of `shape` for a row whose direction needs `least_ndim` dimensions (0: any)."""
    ndim = len(shape)
    axes = tuple(range(ndim))
    if conv and layout == "channels_last":
        axes = (0, ndim - 1, *range(1, ndim - 1))
    if orientation == "in_out":
        axes = (*axes[:-2], axes[-1], axes[-2])
    logical = tuple(shape[i] for i in axes)
    if conv:
        return View(shape, axes, logical, (logical[0], math.prod(logical[1:])))
    if least_ndim > 0 and ndim == 0:
        return View(shape, axes, (1,), (1,))
    return View(shape, axes, logical, logical)
