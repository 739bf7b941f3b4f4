"""How a parameter is seen by its row: an array (..., m, n) of matrices with m outputs and n inputs.

    elementwise rows            as it is
    2 dimensions                the matrix; orientation = "in_out": stored transposed (an embedding table)
    3 dimensions                a stack of matrices
    4 and more, view = "conv"   a convolution kernel (out, in, *k) as the matrix out × (in · k)
    view = "stack"              a stack of matrices, whatever the number of leading dimensions
    vectors                     (n,); a 0-dimensional parameter is a vector of one

A view is pure data: a permutation of axes and a shape. It is applied to θ, g and every state array
alike, so state keeps the parameter's own shape. MLX stores kernels as (out, *k, in); `portable` is the
permutation to (out, in, *k), in which scales are computed, matrices seen and snapshots written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .recursion import Array, Namespace, Shape

Layout = Literal["channels_first", "channels_last"]  # of convolution kernels: (out, in, *k) or (out, *k, in)
ORIENTATIONS = ("out_in", "in_out")
VIEWS = ("stack", "conv")


@dataclass(frozen=True)
class View:
    """`stored` is the parameter's shape, `logical` the shape that scales are computed from."""

    stored: Shape
    axes: tuple[int, ...]  # permutation of the stored axes
    logical: Shape
    seen: Shape  # what the row gets
    portable: tuple[int, ...]  # permutation of the stored axes to the layout of snapshots

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
    norm: str | None = None,
    orientation: str = "out_in",
    kind: str | None = None,
    layout: str = "channels_first",
) -> View:
    """The view of a parameter of `shape` for a row whose direction needs `least_ndim` dimensions (0: any).

    Args:
        norm: the row's norm; ``spectral_conv`` scales by the kernel's own dimensions.
        orientation, kind: the group's `orientation` and `view`.
        layout: how the framework stores convolution kernels.
    """
    ndim = len(shape)
    plain = tuple(range(ndim))
    kernel = kind == "conv" or norm == "spectral_conv" or (ndim >= 4 and kind is None)
    portable = (0, ndim - 1, *range(1, ndim - 1)) if kernel and ndim > 2 and layout == "channels_last" else plain
    if least_ndim == 0:
        return View(shape, plain, shape, shape, portable)
    if ndim == 0:
        return View(shape, plain, (1,), (1,), portable)
    if least_ndim == 1 or not kernel:
        axes = (*plain[:-2], plain[-1], plain[-2]) if orientation == "in_out" else plain
        logical = tuple(shape[i] for i in axes)
        return View(shape, axes, logical, logical, portable)
    stored = tuple(shape[i] for i in portable)
    seen = (stored[0], math.prod(stored[1:]))
    return View(shape, portable, stored if norm == "spectral_conv" else seen, seen, portable)
