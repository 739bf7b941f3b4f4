"""Factorisations of matrices, chosen by the tier: `eigh`, `svd`, `inverse`.

A namespace provides them as its `linalg`: the fast tier has its library's own, and the exact tier (`exact`) the
ones of `jacobi` and `elimination`, which are made of elementwise operations, exact products and fixed sums in a
fixed number of steps, so that they have one right answer on every backend, in float32 as in float64.

Nothing may be made of what the two leave open: the order of eigenvalues and singular values, the signs of
vectors, the basis of an eigenspace, and the vectors that belong to singular values 0.
"""

from __future__ import annotations

from ..recursion import Array, Namespace


def eigh(xp: Namespace, a: Array) -> tuple[Array, Array]:
    """(λ, Q) of symmetric a (..., n, n): a = Q diag(λ) Qᵀ, λ (..., n) in any order."""
    values, vectors = xp.linalg.eigh(a)
    return values, vectors


def svd(xp: Namespace, a: Array) -> tuple[Array, Array, Array]:
    """(U, σ, Vᵀ) of a (..., m, n), thin: k = min(m, n) columns and rows; σ (..., k) in any order."""
    u, sigma, vh = xp.linalg.svd(a, full_matrices=False)
    return u, sigma, vh


def inverse(xp: Namespace, a: Array) -> Array:
    """a⁻¹ of a (..., n, n) whose symmetric part is at least I, such as I + γA with A >= 0, or I − X/2 with Xᵀ = −X."""
    return xp.linalg.inv(a)
