"""Sums, largest entries and products of arrays with bounds: what makes few numbers of many.

    Σ over n terms, in any order    Σ e + γ_{n−1} Σ (|x| + e),     γ_n = n u / (1 − n u)
    A B with k terms, likewise      e_A |B| + |A| e_B + e_A e_B + γ_k (|A| + e_A)(|B| + e_B)
    ... by error-free slices        (2 + chunks) u |A||B| + 5k 2^-30 max|row of A| max|column of B| instead, as in
                                    `dualopt.exact`, k the terms that are not 0; the larger of the two is taken

A deviation that is bounded matrix by matrix stays so through products, ‖A Δ‖ <= ‖A‖ ‖Δ‖, and k entries of it add up
to √k ‖Δ‖ at most.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dualopt.exact import CHUNK

from .arithmetic import Array
from .bounded import Bounded, aligned, times
from .origins import Length, Product, summed

if TYPE_CHECKING:
    from .bounds import Bounds

Axis = int | tuple[int, ...] | None


def largest(a: Any, axis: Axis, keepdims: bool) -> Array:
    x = a.x if isinstance(a, Bounded) else a
    return np.asarray(np.max(x, axis=axis, keepdims=keepdims), np.float32)


def total(xp: Bounds, a: Bounded, axis: Axis, keepdims: bool) -> Bounded:
    axes = range(a.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    gone = tuple(sorted(i % a.ndim - a.ndim for i in axes))
    n = math.prod(a.shape[i] for i in gone)
    x, s, e = (np.sum(y, axis=gone, keepdims=True) for y in (a.x, a.s, a.e))
    if a.norm is not None:  # |Σ δ| over k entries of a matrix is at most √k ‖δ‖
        inner, outer = (tuple(i for i in gone if (i >= -2) == within) for within in (True, False))
        spread = np.broadcast_to(a.norm, (*a.e.shape[:-2], 1, 1)).sum(axis=outer, keepdims=True)
        e = e + math.sqrt(math.prod(a.shape[i] for i in inner)) * spread
    if isinstance(a.origin, Product):
        e = np.fmin(e, summed(a.origin, gone))
    largest = np.sum(np.abs(a.x), axis=gone, keepdims=True) + e
    ndim = e.ndim - 1
    e = e + xp.gamma(n - 1, ndim) * largest + np.minimum(largest, (n - 1) * xp.partial(ndim))
    unsure = None if a.unsure is None else np.asarray(a.unsure.any(axis=gone, keepdims=True))
    origin, norm = None, None
    if keepdims and a.norm is not None:
        norm = np.zeros_like(e[..., :1, :1])  # its entries are measured together, as those of a are
    if keepdims and isinstance(a.origin, Product) and a.origin.square:
        origin = Length(a.origin.a, gone, 2)
    if not keepdims:
        x, s, e = (np.squeeze(y, axis=gone) for y in (x, s, e))
        unsure = None if unsure is None else np.squeeze(unsure, axis=gone)
    return Bounded(xp, x, s, e, unsure=unsure, norm=norm, origin=origin)


def product(xp: Bounds, a: Bounded, b: Bounded) -> Bounded:
    norm = _norm_of_product(a, b)
    if norm is not None:
        a, b = (Bounded(xp, y.x, y.s, y.e, unsure=y.unsure) for y in (a, b))
    k, ndim = a.shape[-1], max(a.ndim, b.ndim)
    ea, eb = aligned(a.e, ndim), aligned(b.e, ndim)
    left, right = np.abs(a.x), np.abs(b.x)
    e = left @ eb + ea @ (right + eb) if ea.any() or eb.any() else np.zeros_like(ea[..., :1])
    largest = left @ right + e
    if norm is not None:
        largest = largest + norm
    lines = (left + ea).max(axis=-1, keepdims=True) * (right + eb).max(axis=-2, keepdims=True)
    chunks = xp.gamma(2 + -(-k // CHUNK), ndim)
    may = [((y.x != 0) | (y.e > 0).any(axis=0)).astype(np.float64) for y in (a, b)]
    terms = may[0] @ may[1] if norm is None else k  # a product with 0 is exact in slices, too
    slices = chunks * largest + np.sign(chunks) * (5 * 2.0**-30) * terms * lines
    tiny = xp.column("least mul", ndim, lambda m: m.tiny("mul")) + xp.partial(ndim)
    e = e + np.maximum(xp.gamma(k, ndim) * largest, slices) + np.minimum(largest, k * tiny)
    unsure: Array | None = None
    for part in (a.unsure, b.unsure):  # every element depends on all of a row and a column
        if part is not None:
            flags = np.broadcast_to(aligned(part, ndim).any(axis=(-2, -1), keepdims=True), e.shape)
            unsure = np.asarray(flags if unsure is None else unsure | flags)
    return Bounded(xp, a.x @ b.x, a.s @ b.s, e, unsure=unsure, norm=norm)


def _norm_of_product(a: Bounded, b: Bounded) -> Array | None:
    """‖(A + E_A + Δ_A)(B + E_B + Δ_B) − (A + E_A)(B + E_B)‖, Δ being what `norm` bounds; None if there is none."""
    if a.norm is None and b.norm is None:
        return None
    ndim = max(a.ndim, b.ndim)
    total: Any = 0.0
    for one, other in ((a, b), (b, a)):
        if other.norm is not None:
            size = np.abs(one.x) + one.e + (0.0 if one.norm is None else one.norm)
            length = np.sqrt(np.sum(size * size, axis=(-2, -1), keepdims=True))
            total = total + times(aligned(length, ndim), aligned(other.norm, ndim))
    return np.asarray(total)
