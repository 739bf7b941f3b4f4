"""The MLX namespaces: `exact` and `fast`, over mlx.core.

mlx.core has every name of the contract, but its `sum` adds one element after the other in float32 (the
sum of 2**25 ones is 2**24), and its factorisations exist on the CPU only.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import mlx.core as mx

from dualopt import exact as exact_tier
from dualopt.directions.polar.work import Work
from dualopt.exact import Overlay

BLOCK = 64  # elements added one after the other: as fast as one native sum of all, and accurate


def _sum_along(x: mx.array, axis: int) -> mx.array:
    """The sum over `axis` >= 0, which stays with length 1: sums of blocks, then of their sums."""
    n = x.shape[axis]
    if n == 0:  # mx.sum does not come back from some of these
        return mx.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), x.dtype)
    if n <= BLOCK:
        return mx.sum(x, axis=axis, keepdims=True)
    blocks, left = divmod(n, BLOCK)
    whole, rest = mx.split(x, [n - left], axis=axis) if left else (x, None)
    sums = mx.sum(mx.reshape(whole, (*x.shape[:axis], blocks, BLOCK, *x.shape[axis + 1 :])), axis=axis + 1)
    if rest is not None:
        sums = mx.concat([sums, mx.sum(rest, axis=axis, keepdims=True)], axis=axis)
    return _sum_along(sums, axis)


def blocked_sum(x: mx.array, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> mx.array:
    """`sum` of the array API: in blocks of blocks, one axis after the other, the last one first."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    gone = sorted((i % x.ndim for i in axes), reverse=True)
    for i in gone:
        x = _sum_along(x, i)
    return x if keepdims else mx.reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


def chosen_sign(x: mx.array, /) -> mx.array:
    """`sign` of a float32 array; 0 for NaN, as MLX has it.

    On the CPU `mx.sign` keeps the loop of a compiled function from being vectorised: Lion takes 10 times
    as long with it.
    """
    return mx.where(x > 0, 1.0, mx.where(x < 0, -1.0, 0.0))


def _like(value: float) -> Callable[[mx.array], mx.array]:
    """`zeros_like` and `ones_like` as a constant that is read in every place: an array of them would be written."""
    return lambda x: mx.broadcast_to(mx.array(value, x.dtype), x.shape)


def svd(x: mx.array, /, *, full_matrices: bool = True) -> tuple[mx.array, mx.array, mx.array]:
    """U, σ, Vᵀ of x (..., m, n), on the CPU; without `full_matrices` U is (..., m, k), Vᵀ (..., k, n)."""
    u, sigma, vh = mx.linalg.svd(x, stream=mx.cpu)
    if full_matrices:
        return u, sigma, vh
    k = sigma.shape[-1]
    return u[..., :k], sigma, vh[..., :k, :]


def svdvals(x: mx.array, /) -> mx.array:
    """The singular values of x (..., m, n), the largest first, on the CPU."""
    return mx.linalg.svd(x, compute_uv=False, stream=mx.cpu)  # type: ignore[return-value]


def eigh(x: mx.array, /) -> tuple[mx.array, mx.array]:
    """λ and Q of symmetric x (..., n, n), on the CPU."""
    return mx.linalg.eigh(x, stream=mx.cpu)


def inv(x: mx.array, /) -> mx.array:
    """The inverse of x (..., n, n), on the CPU."""
    return mx.linalg.inv(x, stream=mx.cpu)


class Joint(Work):
    """Products that are scaled and added to something else in the same call."""

    def sum(self, a: float, x: mx.array, u: mx.array, v: mx.array, c: float = 1.0) -> mx.array:
        return mx.addmm(x, u, v, alpha=c, beta=a)


class Narrow(Joint):
    """bfloat16 as it is stored, and products in it."""

    def narrow(self, x: mx.array) -> mx.array:
        return x.astype(mx.bfloat16)

    def widen(self, x: mx.array) -> mx.array:
        return x.astype(mx.float32)


_linalg = SimpleNamespace(eigh=eigh, inv=inv, svd=svd, svdvals=svdvals)
_base = Overlay(mx, "mlx", sum=blocked_sum, linalg=_linalg)

EXACT = exact_tier(_base)
FAST = Overlay(
    _base,
    "fast",
    sign=chosen_sign,
    zeros_like=_like(0.0),
    ones_like=_like(1.0),
    float32_work=Joint,
    bfloat16_work=Narrow,
)
