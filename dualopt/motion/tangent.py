"""What motions on spheres share: the part of u that turns θ."""

from __future__ import annotations

from ..recursion import Array, Namespace

MATRIX = (-2, -1)
ROUNDING = 16  # eps: (3 + log2 n) / 2 eps is the most that a projection of n <= 2^29 entries rounds


def tangent(xp: Namespace, u: Array, w: Array, axis: int | tuple[int, ...]) -> Array:
    """u − <u, w> w over `axis`, and 0 where that is nothing but rounding; w has length 1.

    Where u is parallel to w what is left has no correct digit, and would be normalised to a direction.
    """
    d = u - xp.sum(u * w, axis=axis, keepdims=True) * w
    tolerance = (ROUNDING * float(xp.finfo(u.dtype).eps)) ** 2
    left = xp.sum(d * d, axis=axis, keepdims=True)
    real = left > tolerance * xp.sum(u * u, axis=axis, keepdims=True)
    return xp.where(real, d, xp.zeros_like(d))
