"""What motions on spheres share: the part of u that turns θ."""

from __future__ import annotations

from ..recursion import Array, Namespace

MATRIX = (-2, -1)
ROUNDING = 16  # eps: (3 + log2 n) / 2 eps is the most that a projection of n <= 2^29 entries rounds


def tangent(xp: Namespace, u: Array, w: Array, axis: int | tuple[int, ...]) -> Array:
    """u − <u, w> w over `axis`, and 0 where that is nothing but rounding; w has length 1.

    Where u is parallel to w what is left has no correct digit, and would be normalised to a direction.
    """
    d, left, whole = projected(xp, u, w, axis)
    real = left > (ROUNDING * float(xp.finfo(u.dtype).eps)) ** 2 * whole
    return xp.where(real, d, xp.zeros_like(d))


def projected(xp: Namespace, u: Array, w: Array, axis: int | tuple[int, ...]) -> tuple[Array, Array, Array]:
    """(d, ‖d‖², ‖u‖²) of d = u − <u, w> w."""
    d = u - xp.sum(u * w, axis=axis, keepdims=True) * w
    left, whole = (xp.sum(x * x, axis=axis, keepdims=True) for x in (d, u))
    return d, left, whole
