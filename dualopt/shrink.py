"""a: how much of θ is lost in an update, c_a θ with c_a = 1 − a.

direct      a = 2^(−Δτ/h_a), whatever the step
cautious    the same, where the update does not already shrink: u θ ≤ 0    (arXiv 2510.12402)
corrected   a = √(1 − q²(1 − a_peak²)), q = η/η_peak: the stationary norm does not depend on the
            schedule    (arXiv 2512.08217; 1 − a² ∝ η² is its exact form in these coordinates)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .clock import Clock
from .counts import complement
from .part import Stage
from .recursion import Action, Array, Namespace, Scalars, Shape


@dataclass(frozen=True)
class Direct(Stage):
    """c_a θ with a = 2^(−q_shrink Δτ/h_a)."""

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"c_a": ("shrink_half_life",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"c_a": complement(clock.q_shrink * clock.dtau, action["shrink_half_life"])}

    def __call__(self, xp: Namespace, theta: Array, u: Array, k: Scalars) -> Array:
        return k["c_a"] * theta


@dataclass(frozen=True)
class Cautious(Direct):
    """c_a θ where the applied update u does not point towards zero: u θ ≤ 0, or < 0 if `strict`.

    The test is on signs: the product of 1e-30 and 1e-20 underflows to 0, which would count as ≤ 0.
    With ≤ an exact zero of u or θ shrinks, as published.
    """

    strict: bool = False

    def __call__(self, xp: Namespace, theta: Array, u: Array, k: Scalars) -> Array:
        if self.strict:
            grows = ((u < 0) & (theta > 0)) | ((u > 0) & (theta < 0))
        else:
            grows = ((u <= 0) & (theta >= 0)) | ((u >= 0) & (theta <= 0))
        lost = k["c_a"] * theta
        return xp.where(grows, lost, xp.zeros_like(lost))


@dataclass(frozen=True)
class Corrected(Direct):
    """c_a θ with 1 − a² = q² (1 − a_peak²), a_peak = 2^(−Δτ/h_a), q = η/step.

    The steady state E‖θ‖² = η² C / (1 − a²) is then the same at every point of a schedule.
    """

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        lost_square = clock.q**2 * complement(2 * clock.dtau, action["shrink_half_life"])  # 1 − a²
        return {"c_a": -math.expm1(0.5 * math.log1p(-min(lost_square, 1.0))) if lost_square < 1 else 1.0}


Shrink = Direct | Cautious | Corrected
KINDS = ("direct", "cautious", "corrected")
