"""How a parameter is seen by its row: an array (..., m, n) of matrices with m outputs and n inputs.

    elementwise rows            as it is
    2 dimensions                the matrix; orientation = "in_out": stored transposed (an embedding table)
    3 dimensions                a stack of matrices
    4 and more, view = "conv"   a convolution kernel (out, in, *k) as the matrix out × (in · k)
    view = "stack"              a stack of matrices, whatever the number of leading dimensions
    vectors                     (n,); a 0-dimensional parameter is a vector of one
    blocks                      each of these cut along one axis: the pieces are a stack of their own, in front

A view is pure data: a shape, a permutation of its axes, and the shape of the result. It is applied to θ, g and
every state array alike, so state keeps the parameter's own shape. MLX stores kernels as (out, *k, in); `portable`
is the permutation to (out, in, *k), in which scales are computed, matrices seen, blocks counted and snapshots
written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .blocks import Blocks
from .recursion import Array, Namespace, Shape

Layout = Literal["channels_first", "channels_last"]  # of convolution kernels: (out, in, *k) or (out, *k, in)
ORIENTATIONS = ("out_in", "in_out")
VIEWS = ("stack", "conv")


@dataclass(frozen=True)
class View:
    """`stored` is the parameter's shape, `logical` the shape that scales are computed from."""

    stored: Shape
    axes: tuple[int, ...]  # permutation of the axes of `split`
    logical: Shape
    seen: Shape  # what the row gets
    portable: tuple[int, ...]  # permutation of the stored axes to the layout of snapshots
    split: Shape | None = None  # the stored shape with one axis cut in two; None: uncut

    @property
    def size(self) -> int:
        return math.prod(self.stored)

    @property
    def cut(self) -> Shape:
        """The shape whose axes are permuted."""
        return self.stored if self.split is None else self.split

    def apply(self, xp: Namespace, x: Array) -> Array:
        """x in the stored shape -> x as the row sees it."""
        x = _shaped(xp, x, self.cut)
        if self.axes != tuple(range(len(self.cut))):
            x = xp.permute_dims(x, self.axes)
        return _shaped(xp, x, self.seen)

    def undo(self, xp: Namespace, x: Array) -> Array:
        """The inverse of `apply`."""
        x = _shaped(xp, x, tuple(self.cut[i] for i in self.axes))
        if self.axes != tuple(range(len(self.cut))):
            x = xp.permute_dims(x, tuple(self.axes.index(i) for i in range(len(self.axes))))
        return _shaped(xp, x, self.stored)

    def flat(self, xp: Namespace, x: Array) -> Array:
        """The elements of x, in the stored shape, in the order of the portable layout."""
        return xp.reshape(xp.permute_dims(x, self.portable), (-1,))

    def placed(self, xp: Namespace, flat: Array) -> Array:
        """The inverse of `flat`."""
        x = flat.reshape(tuple(self.stored[i] for i in self.portable))
        plain = tuple(range(len(self.portable)))
        return x if self.portable == plain else xp.permute_dims(x, tuple(self.portable.index(i) for i in plain))


def _shaped(xp: Namespace, x: Array, shape: Shape) -> Array:
    return x if tuple(x.shape) == shape else xp.reshape(x, shape)


def is_kernel(ndim: int, norm: str | None, kind: str | None) -> bool:
    """Whether a parameter of `ndim` dimensions is a convolution kernel under this norm and group key `view`."""
    return kind == "conv" or norm == "spectral_conv" or (ndim >= 4 and kind is None)


def view(
    shape: Shape,
    *,
    least_ndim: int,
    norm: str | None = None,
    orientation: str = "out_in",
    kind: str | None = None,
    layout: str = "channels_first",
    blocks: Blocks | None = None,
    whole: bool = False,
) -> View:
    """The view of a parameter of `shape` for a row whose direction needs `least_ndim` dimensions (0: any).

    Args:
        norm: the row's norm; ``spectral_conv`` scales by the kernel's own dimensions.
        orientation, kind, blocks: the group's `orientation`, `view` and `blocks`; the blocks fit the shape.
        layout: how the framework stores convolution kernels.
        whole: the row joins all matrices of one block, as (k, m, n) (see `Row.whole`).
    """
    ndim = len(shape)
    plain = tuple(range(ndim))
    kernel = is_kernel(ndim, norm, kind)
    portable = (0, ndim - 1, *range(1, ndim - 1)) if kernel and ndim > 2 and layout == "channels_last" else plain
    if least_ndim == 0 and blocks is None:
        return View(shape, plain, shape, shape, portable)
    if ndim == 0:
        return View(shape, plain, (1,), (1,), portable)
    if kernel and (least_ndim > 1 or blocks is not None):
        stack, rows, columns = plain[:0], portable[:1], portable[1:]
    else:
        turned = orientation == "in_out" and least_ndim > 0
        order = (*plain[:-2], plain[-1], plain[-2]) if turned else plain
        stack, rows, columns = order[:-2], order[-2:-1], order[-1:]
    cut, split = shape, None
    first: tuple[int, ...] = ()  # the axis of the blocks
    if blocks is not None:
        at = portable[blocks.axis] if kernel else blocks.axis
        cut = split = blocks.split(shape, at)
        part, inner = (at + 1, at) if blocks.interleaved else (at, at + 1)
        across, moved = at in columns, {i: inner if i == at else i + (i > at) for i in plain}
        stack, rows, columns = (tuple(moved[i] for i in axes) for axes in (stack, rows, columns))
        if not blocks.joined:
            first = (part,)
        elif across:
            rows = (part, *rows)
        else:
            columns = (part, *columns)
    lead = tuple(cut[i] for i in (*first, *stack))
    matrix = tuple(math.prod(cut[i] for i in axes) for axes in (rows, columns) if axes)
    logical = (*lead, *matrix)
    seen = (*lead[: len(first)], math.prod(lead[len(first) :]), *matrix) if whole else logical
    if norm == "spectral_conv" and kernel:
        logical = tuple(shape[i] for i in portable)
    return View(shape, (*first, *stack, *rows, *columns), logical, seen, portable, split)
