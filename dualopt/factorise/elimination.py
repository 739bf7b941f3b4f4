"""The inverse of a well-conditioned matrix by elimination in place, in array operations only.

Exchanging the first unknown x₁ with the first right side y₁ of y = A x, with pivot p, row r, column c and rest S:

    [ p  r ]         [ S − c r/p    c/p ]
    [ c  S ]   ->    [ −r/p         1/p ]        the first row and column come back as the last

After n exchanges all are exchanged, in the old order: that is A⁻¹. Nothing is pivoted: where the symmetric part of A
is at least I, so is that of every S that remains to be exchanged, and p >= 1. One step of Newton with exact products,
X + X (I − A X), takes out the rounding that has gathered. Source: Gauss and Jordan; Tucker's principal pivots (1960).
"""

from __future__ import annotations

from ..recursion import Array, Namespace
from .jacobi import floored, identity


def inverse(xp: Namespace, a: Array) -> Array:
    """a⁻¹ of a (..., n, n) whose symmetric part is at least I.

    The error is some u n ‖a‖ ‖a⁻¹‖. Numbers below ε² count as 0 (see `jacobi`).
    """
    n, floor = a.shape[-1], float(xp.finfo(a.dtype).eps) ** 2
    a = floored(xp, a, floor)
    x = a
    for _ in range(n):
        pivot = x[..., :1, :1]
        over = xp.ones_like(pivot) / pivot
        row, column = over * x[..., :1, 1:], x[..., 1:, :1]
        upper = xp.concat([x[..., 1:, 1:] - column * row, over * column], axis=-1)
        x = floored(xp, xp.concat([upper, xp.concat([-row, over], axis=-1)], axis=-2), floor)
    return x + xp.matmul(x, identity(xp, a) - xp.matmul(a, x))
