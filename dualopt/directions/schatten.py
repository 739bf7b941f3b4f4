"""Directions that reshape the singular values of Z = U Σ Vᵀ, and keep its singular vectors: u = −U f(Σ) Vᵀ.

    regularized   f(σ) = σ/√(σ² + ε²)                  ∇ of the smoothed nuclear norm Σ (√(σ² + ε²) − ε)
    mimuon        f(σ) = 1 if all gaps |σ_i − σ_j| >= τ, else σ
    freon         f(σ) = (σ/σ̄)^(q−1), q = 2(1 − c), σ̄ = (mean σ^q)^(1/q)
    kaon          f = T times σ ← 4.1 σ (1 − σ²)², of Z/‖Z‖_F, over 1.175

All are equivariant under rotations of rows and columns, and give 0 for 0. Singular values up to
max(m, n) ε_machine σ₁ count as 0, and their directions are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..factorise import svd
from ..factorise.jacobi import identity
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..scaling import power_of_two, unit
from .polar import PLAIN, POLAR_EXPRESS, Way, kept, polar, weighted
from .polar.iterations import gram, tall
from .powers import over_count, power, product


@dataclass(frozen=True)
class Spectral(Stage):
    """f(σ) on the singular values of every matrix (..., m, n)."""

    local: ClassVar[bool] = False


def augmented(xp: Namespace, x: Array, side: Array) -> Array:
    """[x, side] of a wide x (..., m, n) and square `side`; one above the other if x is tall."""
    return xp.concat([x, side], axis=-2 if tall(x) else -1)


@dataclass(frozen=True)
class Regularized(Spectral):
    """u = −Z (ZᵀZ + ε² I)^(−1/2), the first block of the polar factor of [Z, ε I].

    It is argmax_U <Z, U> − Ψ*(U) with Ψ*(U) = ε Σ (1 − √(1 − σ(U)²)): 1/ε-Lipschitz, ‖u‖_op < 1, the polar
    factor as ε → 0 and Z/ε as ε → ∞. `relative`: ε is in units of ‖Z‖_F/√r, r = min(m, n), the root mean square
    of the singular values; then u does not depend on the scale of Z. Source: arXiv 2605.23871 as restated by
    others; the conjugate, the augmented matrix and the relative ε are ours.
    """

    method: str = POLAR_EXPRESS.name
    way: Way = PLAIN
    relative: bool = False

    shaped: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"smoothing": ("smoothing", "polar")}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        rank = max(1, min(shape[-2:])) if self.relative else 1
        return {"smoothing": action["smoothing"] / rank**0.5}

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        x = unit(xp, z, (-2, -1)) if self.relative else z
        square = x[..., : x.shape[-1], :] if tall(x) else x[..., : x.shape[-2]]
        o = self.factor(xp, augmented(xp, x, k["smoothing"] * identity(xp, square)))
        return -o[..., : z.shape[-2], : z.shape[-1]]

    def factor(self, xp: Namespace, x: Array) -> Array:
        """The polar factor of the augmented matrix."""
        return polar(xp, x, self.method, self.way)


@dataclass(frozen=True)
class MiMuon(Spectral):
    """u = −U Vᵀ if min_{i≠j} |σ_i − σ_j| >= τ over nonzero σ, else −Z. Rank 1 and 0 have no gap: u = −U Vᵀ.

    The branches differ in scale by about σ. `relative`: τ is in units of σ₁ (ours). Source: arXiv 2605.19619.
    """

    relative: bool = False

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"gap": ("gap",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"gap": action["gap"]}

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        scale = power_of_two(xp, xp.max(xp.abs(z), axis=(-2, -1), keepdims=True))
        u, sigma, vh = svd(xp, z * (xp.ones_like(scale) / scale))
        present = kept(xp, sigma, z.shape)
        one = xp.ones_like(sigma)
        zero = xp.zeros_like(one)
        largest = xp.max(sigma, axis=-1, keepdims=True)
        least = k["gap"] * largest if self.relative else (xp.zeros_like(largest) + k["gap"]) / scale[..., 0]
        apart = xp.abs(sigma[..., :, None] - sigma[..., None, :])
        among = xp.where(present, one, zero)
        pairs = among[..., :, None] * among[..., None, :] - identity(xp, apart)
        close = xp.where((apart < least[..., None]) & (pairs > 0), xp.ones_like(apart), xp.zeros_like(apart))
        merged = xp.max(close, axis=(-2, -1), keepdims=True) > 0
        return -xp.where(merged, z, weighted(xp, u, among, vh))


@dataclass(frozen=True)
class Freon(Spectral):
    """u = −U (Σ/σ̄)^(q−1) Vᵀ, q = 2(1 − c): (Z Zᵀ)^(−c) Z over a power mean of the k nonzero singular values.

    c = 0 is √k Z/‖Z‖_F, c = 1/2 the polar factor, c = 1 the inverse spectrum over the geometric mean (q = 0). For
    q >= 1 it is steepest descent in a Schatten norm, p = q/(q − 1), but for its length; for q < 1, where the paper's
    best exponents are, no unitarily invariant norm has it. mean σ(u)^(q/(q−1)) = 1 for q ≠ 1, 0.

    Errors: some u n, times max(1, (1 − q)/q) where q > 0 from the root of the mean: for c near 1, say c = 1.
    Source: arXiv 2605.11181. Its option to rescale the weights to ‖θ‖_F = √m afterwards is a motion.
    """

    exponent: float = 2 / 3

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        u, sigma, vh = svd(xp, unit(xp, z, (-2, -1)))
        return -weighted(xp, u, self.weights(xp, sigma, kept(xp, sigma, z.shape)), vh)

    def weights(self, xp: Namespace, sigma: Array, present: Array) -> Array:
        """(σ/σ̄)^(q−1) of the singular values (..., k) that are `present`, 0 for the others."""
        q = 2 * (1 - self.exponent)
        one, largest = xp.ones_like(sigma), xp.max(sigma, axis=-1, keepdims=True)
        zero = xp.zeros_like(one)
        x = xp.where(present, sigma * (one[..., :1] / xp.where(largest == 0, one[..., :1], largest)), one)  # <= 1
        share = over_count(xp, present, one)
        if q == 0:  # the product of k-th roots over σ
            weights = product(xp, power(xp, x, share)) * (one / x)
        else:
            mean = share * xp.sum(xp.where(present, power(xp, x, q), zero), axis=-1, keepdims=True)
            mean = xp.where(mean == 0, xp.ones_like(mean), mean)
            weights = power(xp, x, q - 1) * power(xp, mean, (1 - q) / q)
        return xp.where(present, weights, zero)


@dataclass(frozen=True)
class Kaon(Spectral):
    """X = Z/‖Z‖_F, T times X ← 4.1 (I − X Xᵀ)² X, u = −X/1.175: a random spectrum.

    The map of σ is chaotic: a change of one bit is another spectrum, which only the exact tier repeats elsewhere.
    ‖u‖_op <= 1, as 4.1 σ (1 − σ²)² <= 1.1735. Source: arXiv 2605.11181.
    """

    iterations: int = 5

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        return -((1 / 1.175) * self.iterated(xp, unit(xp, z, (-2, -1))))

    def iterated(self, xp: Namespace, x: Array) -> Array:
        """The map, T times."""
        for _ in range(self.iterations):
            r = gram(xp, x)
            y = x - (xp.matmul(x, r) if tall(x) else xp.matmul(r, x))
            x = 4.1 * (y - (xp.matmul(y, r) if tall(y) else xp.matmul(r, y)))
        return x
