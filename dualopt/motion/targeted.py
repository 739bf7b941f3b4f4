"""Additive motion with the η that brings the group to a target RMS in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..signal import AMBIENT
from .additive import Additive


@dataclass(frozen=True)
class Targeted(Additive):
    """η solves RMS(w + η u) = R over all entries of the group, 0 ≤ η ≤ q · step, w the shrunk weights.

    With the pooled sums  σ = Σ w∘u,  ν = Σ u²,  ω = Σ w²  over n entries, the equation is

        ν η² + 2 σ η + ω − n R² = 0,      D = σ² − ν (ω − n R²)

    and η = (−σ + √D)/ν; the smaller root when the weights are already too large and u shrinks them; the
    closest approach −σ/ν when no root is real. Every branch is clamped to [0, q · step].
    Source: JiHa-Kim, tinyshakespeare-gpt-optimizers (one η per group); w generalises its a θ to every shrink.
    """

    local: ClassVar[bool] = False
    shaped: ClassVar[bool] = True
    pools: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return super().needs | {"entries_r2": ("target_rms",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return super().scalars(action, clock, shape) | {"entries_r2": math.prod(shape) * action["target_rms"] ** 2}

    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays:
        along = u[AMBIENT]
        w = theta - self.shrink(xp, theta, along, k)
        sum_uu = xp.sum(along * along)
        return {
            "sum_wu": xp.sum(w * along),
            "sum_uu": sum_uu,
            "excess": xp.sum(w * w) - (xp.zeros_like(sum_uu) + k["entries_r2"]),  # ω − n R²
        }

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        pooled = k if "sum_wu" in k else {**k, **self.pool(xp, theta, u, k)}
        return super().__call__(xp, theta, u, s, {**k, "eta": self.solve(xp, pooled)})

    def solve(self, xp: Namespace, k: Scalars) -> Array:
        """The η of the docstring, a 0-d array."""
        sigma, nu, excess = k["sum_wu"], k["sum_uu"], k["excess"]
        zero, one = xp.zeros_like(nu), xp.ones_like(nu)
        discriminant = sigma * sigma - nu * excess
        root = xp.sqrt(xp.where(discriminant > 0, discriminant, zero))
        smaller = (excess > 0) & (sigma < 0)
        inverse = one / xp.where(nu > 0, nu, one)  # u = 0: η multiplies nothing
        eta = inverse * (xp.where(smaller, -root, root) - sigma)
        peak = zero + k["eta"]
        eta = xp.where(eta > 0, eta, zero)
        return xp.where(eta < peak, eta, peak)
