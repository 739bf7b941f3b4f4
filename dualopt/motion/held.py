"""Additive motion with the shrink that brings the group to a target RMS exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..signal import AMBIENT
from .additive import Additive


@dataclass(frozen=True)
class Held(Additive):
    """θ+ = θ + (η u − d P∘θ), where d solves RMS(θ+) = R over all entries of the group; P is the shrink's mask.

    With the pooled sums  ξ = Σ (P∘θ)²,  χ = Σ P∘θ∘(θ + ηu),  ω = Σ (θ + ηu)²  over n entries, the equation is

        ξ d² − 2 χ d + ω − n R² = 0,      D = (χ/ξ)² − (ω − n R²)/ξ

    and d its root closest to 0, (ω − n R²)/ξ / (χ/ξ ± √D) with the sign of χ; the closest approach χ/ξ when no root
    is real; 0 when the mask leaves nothing. d < 0 lets the weights grow. P is 1 with direct shrink; cautious, it is
    1 where u θ <= 0, u being added: an entry that u already shrinks is left alone.

    Source: JiHa-Kim's note on norm control in Lion-K, whose mask is the opposite one; pooling, and D < 0, are ours.
    """

    local: ClassVar[bool] = False
    shaped: ClassVar[bool] = True
    pools: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"eta": ("step",), "entries_r2": ("target_rms",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"eta": clock.q * action["step"], "entries_r2": math.prod(shape) * action["target_rms"] ** 2}

    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays:
        along = u[AMBIENT]
        masked = self.shrink(xp, theta, along, {**k, "c_a": 1.0})  # P∘θ
        ahead = theta + k["eta"] * along
        sum_pp = xp.sum(masked * masked)
        return {
            "sum_pp": sum_pp,
            "sum_pa": xp.sum(masked * ahead),
            "excess": xp.sum(ahead * ahead) - (xp.zeros_like(sum_pp) + k["entries_r2"]),  # ω − n R²
        }

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        pooled = k if "sum_pp" in k else {**k, **self.pool(xp, theta, u, k)}
        return super().__call__(xp, theta, u, s, {**k, "c_a": self.solve(xp, pooled)})

    def solve(self, xp: Namespace, k: Scalars) -> Array:
        """The d of the docstring, a 0-d array."""
        xi = k["sum_pp"]
        zero, one = xp.zeros_like(xi), xp.ones_like(xi)
        inverse = one / xp.where(xi > 0, xi, one)
        nearest, excess = k["sum_pa"] * inverse, k["excess"] * inverse  # of size 1 where χ² and ξω overflow
        discriminant = nearest * nearest - excess
        real = discriminant > 0
        root = xp.sqrt(xp.where(real, discriminant, zero))
        below = nearest + xp.where(nearest < 0, -root, root)
        solved = excess * (one / xp.where(below == 0, one, below))
        return xp.where(xi > 0, xp.where(real, solved, nearest), zero)
