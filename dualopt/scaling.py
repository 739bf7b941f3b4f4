"""Powers of two as scales: multiplying by them never rounds, so they change range and nothing else."""

from __future__ import annotations

import math

from .recursion import Array, Namespace, Shape


def power_of_two(xp: Namespace, m: Array) -> Array:
    """p, a power of two with 2 < m/p <= 4, elementwise, for m >= 0; both p and 1/p are normal numbers.

    Only + − × and comparisons are used (Rump's next power of two: (m/u + m) − m/u is 0 or the next
    power), so p has the same bits everywhere. Below 2**-124, and for m = 0, p is 2**-126. NaN and
    infinity give NaN.
    """
    inverse_u = 2.0 / float(xp.finfo(m.dtype).eps)
    large = m > 1.0
    near = xp.where(large, m * 2.0**-64, m)  # keeps near/u finite
    far = near * inverse_u
    above = xp.abs((far + near) - far)
    above = xp.where(above == 0, near, above)
    least = xp.ones_like(m) * 2.0**-126
    small = above * 0.25
    return xp.where(large, above * 2.0**62, xp.where(small < least, least, small))


def levelled(xp: Namespace, x: Array) -> Array:
    """x (..., m, n) over a power of two for each matrix, so that 2 (mn)^-½ < ‖x‖_F <= 8; rounds nothing. 0 stays 0."""
    scale = power_of_two(xp, xp.max(xp.abs(x), axis=(-2, -1), keepdims=True))
    return (2.0 ** -area(x.shape) * x) * (xp.ones_like(scale) / scale)


def area(shape: Shape) -> int:
    """e with 2^(e − 1) <= √(mn) < 2^e for a matrix (..., m, n)."""
    return math.frexp(math.sqrt(math.prod(shape[-2:])))[1]


def unit(xp: Namespace, x: Array, axis: int | tuple[int, ...], eps: float | Array | None = None) -> Array:
    """x / ‖x‖₂ over `axis`, or x / (‖x‖₂ + eps); a zero vector stays zero.

    Scaled by a power of two first: the squares of 1e20 do not overflow, those of 1e-30 do not vanish,
    and the result does not depend on the scale of x unless there is an eps.
    """
    scale = power_of_two(xp, xp.max(xp.abs(x), axis=axis, keepdims=True))
    inverse = xp.ones_like(scale) / scale
    y = x * inverse
    length = xp.sqrt(xp.sum(y * y, axis=axis, keepdims=True))
    if eps is not None:
        length = length + eps * inverse
    one = xp.ones_like(length)
    return y * (one / xp.where(length == 0, one, length))


def length(xp: Namespace, x: Array, axis: int | tuple[int, ...]) -> Array:
    """‖x‖₂ over `axis`, which stays with length 1; scaled as in `unit`, so that squares stay in range."""
    scale = power_of_two(xp, xp.max(xp.abs(x), axis=axis, keepdims=True))
    y = x * (xp.ones_like(scale) / scale)
    return scale * xp.sqrt(xp.sum(y * y, axis=axis, keepdims=True))
