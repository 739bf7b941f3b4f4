"""Additive motion in steady-state coordinates: the RMS that weights settle at, instead of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import steady
from ..clock import Clock
from ..counts import complement
from ..noise import ANY, Noise
from ..recursion import Action, Shape
from .additive import Additive


@dataclass(frozen=True)
class Settled(Additive):
    """η = q ρ √((1 − a²) / (e² A)): with gradients that are noise, RMS(θ) settles at ρ = steady_rms.

    a = 2^(−Δτ/h_a) before any schedule of the shrink, e² = c_u²/mn the mean square of u's entries, A the
    amplification (see `steady` and `noise`); S(μ, β) is its value for a → 1. A schedule of the step scales η from
    there; with shrink = "corrected", where 1 − a² ∝ q², the RMS stays at ρ throughout.

    Gradients that agree move weights further, but never beyond the ball: for u of RMS 1, η <= (1 − a) ρ would
    guarantee RMS(θ) <= ρ. Source: JiHa-Kim's notes (steady-state coordinates, retention form); A for all μ is ours.
    """

    noise: Noise = ANY

    shaped: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"eta": ("steady_rms", "shrink_half_life", *self.noise.coordinates)} | self.shrink.needs

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        life = action["shrink_half_life"]
        mu, c = self.noise.memory(action, clock)
        amplification = self.noise.amplification(complement(clock.dtau, life), mu, c)
        square, lost = self.noise.square(shape, mu, c), complement(2 * clock.dtau, life)
        eta = steady.step_for(action["steady_rms"], square, amplification, lost)
        return {"eta": clock.q * eta} | self.shrink.scalars(action, clock, shape)
