"""Bounds of what is made by factorisations: inverses, functions of singular values, inverse roots of memories.

A factorisation is taken to be backward stable: it is that of A + E with ‖E‖ <= max(m, n) ε ‖A‖, ε = 2u, and its
vectors are orthonormal to max(m, n) ε. It is what the core itself relies on where it takes singular values up to
max(m, n) ε σ₁ for 0. All that E does to the result is derived, for the largest E that remains within this:

    inverse           ‖(A + E)⁻¹ − A⁻¹‖ <= ‖A⁻¹‖² ‖E‖ / (1 − ‖A⁻¹‖ ‖E‖)
    U f(Σ) Vᵀ         G ‖E‖, G the norm of the derivative (see `polar_bounds`) at singular values that are nearer to
                      0 by ‖E‖: those of no matrix on the way are smaller, and f here changes most where σ is small
    f(A) Z            for symmetric A with eigenvalues λ and eigenvectors q, and f convex and falling:
                      q̃_iᵀ (f(A + E) − f(A)) q_j = f[λ̃_i, λ_j] q̃_iᵀ E q_j, and so for any Z
                      ‖(f(A + E) − f(A)) Z‖ <= ‖E‖ √Σ_j d_j² ‖q_jᵀ Z‖²,   d_j the steepest f[λ̃, λ_j] within ‖E‖
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .arithmetic import Array, U
from .bounded import Bounded

if TYPE_CHECKING:
    from .bounds import Bounds

MARGIN = 1.01  # for singular values and slopes in float64
CLOSE = 1e-8  # singular values nearer than this count as equal
MATRIX = (-2, -1)


def frobenius(x: Array) -> Array:
    """‖x‖_F of each matrix, (..., 1, 1)."""
    return np.asarray(np.sqrt(np.sum(x * x, axis=MATRIX, keepdims=True)))


def off(a: Bounded) -> Array:
    """The most that each matrix may deviate by, (arithmetics, ..., 1, 1)."""
    return frobenius(a.e) if a.norm is None else np.asarray(frobenius(a.e) + a.norm)


def backward(xp: Bounds, x: Array) -> Array:
    """‖E‖ of a factorisation of x, (arithmetics, ..., 1, 1); 0 where nothing is rounded."""
    units = xp.column("add", x.ndim)
    return np.asarray(2 * max(x.shape[-2:]) * U * units * frobenius(x))


class Factorisations:
    """`linalg` of a namespace with bounds, as far as it is followed in general."""

    def __init__(self, xp: Bounds) -> None:
        self._xp = xp

    def inv(self, a: Bounded) -> Bounded:
        xp = self._xp
        x = np.linalg.inv(a.x)
        size = np.linalg.norm(x, 2, axis=MATRIX, keepdims=True)
        error = off(a) + backward(xp, a.x)
        room = 1 - size * error
        norm = np.where(room > 0, size * size * error / np.where(room > 0, room, 1.0), np.inf)
        return Bounded(xp, x, np.abs(x) + TINY, np.zeros((len(xp.arithmetics), *x.shape)), norm=MARGIN * norm)

    def eigh(self, a: Bounded) -> Any:
        raise NotImplementedError("eigenvectors have no bound: what is made of them has")

    svd = svdvals = eigh


TINY = 2.0**-140  # a magnitude for entries that are 0 and need not be (see `Bounded.norm`)


def derivative(x: Array, y: Array, slope: Array) -> Array:
    """The norm of the derivative of a function that takes singular values x to y; all (..., r)."""
    tiny = x < CLOSE
    ratio = np.where(tiny, np.abs(slope), np.abs(y) / np.where(tiny, 1.0, x)).max(axis=-1)
    apart = np.abs(x[..., :, None] - x[..., None, :])
    equal = apart < CLOSE
    rise = np.abs(y[..., :, None] - y[..., None, :])
    steepest = np.where(equal, np.abs(slope)[..., None], rise / np.where(equal, 1.0, apart)).max(axis=MATRIX)
    return np.asarray(np.maximum(ratio, steepest)[..., None, None])


class Spectrum:
    """U, σ, Vᵀ of a `Bounded` matrix, ‖E‖, and which singular values the core keeps: surely, or at most.

    kept (..., k); sure, possible and error (arithmetics, ..., k) or (arithmetics, ..., 1, 1).
    """

    def __init__(self, xp: Bounds, z: Bounded) -> None:
        self.u, self.sigma, self.vh = np.linalg.svd(z.x, full_matrices=False)
        self.error = off(z) + backward(xp, z.x)
        largest = self.sigma.max(axis=-1, keepdims=True)
        share, e = 2 * max(z.shape[-2:]) * U, self.error[..., 0]
        self.kept = self.sigma > share * largest
        self.sure = self.sigma - e > share * (largest + e)
        self.possible = (self.sigma + e > share * np.maximum(largest - e, 0)) & (self.sigma + e > 0)
        self.undecided = np.asarray((self.sure != self.possible).any(axis=-1)[..., None, None])

    def least(self) -> Array:
        """The smallest that a kept singular value may be, (arithmetics, ..., 1); 1 where there is none."""
        found = np.where(self.kept, self.sigma, np.inf).min(axis=-1, keepdims=True) - self.error[..., 0]
        return np.where(np.isfinite(found), np.maximum(found, 0.0), 1.0)

    def joined(self, weights: Array) -> Array:
        """U diag(w) Vᵀ."""
        return np.asarray((self.u * weights[..., None, :]) @ self.vh)

    def rounding(self, xp: Bounds, weights: Array) -> Array:
        """Of U diag(w) Vᵀ from w, and from vectors that are orthonormal to max(m, n) ε; (arithmetics, ..., 1, 1)."""
        m, n = self.u.shape[-2], self.vh.shape[-1]
        units = xp.column("add", weights.ndim)
        size = np.abs(weights).sum(axis=-1)[..., None, None]
        return np.asarray((min(m, n) + 2 + 4 * max(m, n)) * U * units[..., None] * size)


def polar_factor(xp: Bounds, z: Bounded) -> Bounded:
    """U Vᵀ over the singular values that are kept; where rounding may keep or drop one, all entries are undecided."""
    found = Spectrum(xp, z)
    ones = np.where(found.kept, 1.0, 0.0)
    least = found.least()[..., None]
    slope = np.where(least > 0, 1 / np.where(least > 0, least, 1.0), np.inf)
    return made(xp, z, found, ones, MARGIN * slope * found.error + found.rounding(xp, ones), 1.0)


def made(xp: Bounds, z: Bounded, found: Spectrum, weights: Array, norm: Array, largest: Array | float) -> Bounded:
    """U diag(w) Vᵀ within `norm`, and in any case of matrices whose singular values are at most `largest`."""
    x = found.joined(weights)
    most = frobenius(x) + 2.0 * largest * np.sqrt(min(x.shape[-2:]))
    undecided, said = found.undecided, np.where(norm <= most, norm, np.inf)
    unsure = np.broadcast_to(undecided, (len(xp.arithmetics), *x.shape)) if undecided.any() else None
    return Bounded(
        xp,
        x,
        np.abs(x) + live(z),
        np.zeros((len(xp.arithmetics), *x.shape)),
        norm=np.where(found.possible.any(axis=-1)[..., None, None], np.where(undecided, most, said), 0.0),
        unsure=unsure,
    )


def live(z: Bounded) -> Array:
    """A tiny magnitude in all entries but those of rows and columns that are 0 in every evaluation."""
    may = (z.x != 0) | (z.e > 0).any(axis=0) | (False if z.norm is None else (z.norm > 0).any(axis=0) & (z.s > 0))
    return np.asarray(TINY * (may.any(axis=-1, keepdims=True) & may.any(axis=-2, keepdims=True)))
