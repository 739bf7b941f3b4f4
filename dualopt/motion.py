"""How θ moves along u.

additive    θ+ = a θ + η u,   computed as θ + (η u − c_a θ): the two small terms meet first
targeted    the same with the η that brings the group to a target RMS in one step
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .clock import Clock
from .part import Stage
from .recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from .shrink import Direct, Shrink
from .signal import AMBIENT


@dataclass(frozen=True)
class Additive(Stage):
    """θ+ = θ + (η u − c_a θ), with η = q · step."""

    shrink: Shrink = Direct()

    pools: ClassVar[bool] = False

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"eta": ("step",)} | self.shrink.needs

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"eta": clock.q * action["step"]} | self.shrink.scalars(action, clock, shape)

    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays:
        return {}

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        along = u[AMBIENT]
        return theta + (k["eta"] * along - self.shrink(xp, theta, along, k)), s

    def evaluate(self, xp: Namespace, theta: Array, state: Arrays, k: Scalars) -> Array:
        return theta


@dataclass(frozen=True)
class Targeted(Additive):
    """η solves RMS(a θ + η u) = R over all entries of the group, 0 ≤ η ≤ step · q.

    With the pooled sums  σ = Σ θ∘u,  ν = Σ u²,  ω = Σ θ²  over n entries, the equation is

        ν η² + 2 a σ η + a² ω − n R² = 0,      D = a² σ² + ν (n R² − a² ω)

    and η = (−a σ + √D)/ν; the smaller root when the weights are already too large and u shrinks them;
    the closest approach −a σ/ν when no root is real. Every branch is clamped to [0, step · q].
    Source: JiHa-Kim, tinyshakespeare-gpt-optimizers (RMS-targeted solve), one η per group.
    """

    local: ClassVar[bool] = False
    pools: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        shrunk = {"a": ("shrink_half_life",), "a2": ("shrink_half_life",)}
        return super().needs | shrunk | {"entries_r2": ("target_rms",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        found = super().scalars(action, clock, shape)
        a = 1 - found["c_a"]
        return found | {"a": a, "a2": a * a, "entries_r2": math.prod(shape) * action["target_rms"] ** 2}

    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays:
        along = u[AMBIENT]
        one = xp.sum(xp.zeros_like(theta))
        return {
            "sum_tu": xp.sum(theta * along),
            "sum_uu": xp.sum(along * along),
            "sum_tt": xp.sum(theta * theta),
            "sum_r2": one + k["entries_r2"],
        }

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        pooled = k if "sum_tu" in k else {**k, **self.pool(xp, theta, u, k)}
        return super().__call__(xp, theta, u, s, {**k, "eta": self.solve(xp, pooled)})

    def solve(self, xp: Namespace, k: Scalars) -> Array:
        """The η of the docstring, a 0-d array."""
        sigma, nu = k["a"] * k["sum_tu"], k["sum_uu"]
        excess = k["a2"] * k["sum_tt"] - k["sum_r2"]  # a² ω − n R²
        zero = xp.zeros_like(nu)
        nothing = nu <= 0
        inverse = xp.ones_like(nu) / xp.where(nothing, xp.ones_like(nu), nu)
        discriminant = sigma * sigma - nu * excess
        root = xp.sqrt(xp.where(discriminant > 0, discriminant, zero))
        smaller = (excess > 0) & (sigma < 0)
        eta = inverse * (xp.where(smaller, -root, root) - sigma)
        eta = xp.where(nothing, zero, eta)
        peak = zero + k["eta"]
        eta = xp.where(eta > 0, eta, zero)
        return xp.where(eta < peak, eta, peak)
