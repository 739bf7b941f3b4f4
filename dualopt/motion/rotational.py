"""Rotation at the speed of the equilibrium, from the first update on.

Weights that shrink settle where every update turns them by the same angle η̂_r = √((1 − a²)/S) (see `steady`).
This motion makes every update that large on average, for every unit p (a row, or a matrix), at a fixed length n:

    d ← u − <u, p̂> p̂                          ν ← ν + c_ν (‖d‖² − ν)
    p ← p + η̂_r n d / (√(ν/(1 − 2^(−τ/h_ν))) + ε)
    p ← n (p − p̄) / ‖p − p̄‖                    p̄ the mean of p's entries; without it if not centred

η has no part in it. The shrink half-life sets η̂_r, through 1 − a² = 1 − 2^(−2 q_shrink Δτ/h_a): schedules that
drive the shrink (``drives = "both"``, ``[shrink_schedule]``) anneal it, η̂_r ∝ √q_shrink, which is what a learning
rate does to weights with coupled decay; one that drives the step alone does nothing here, as the angle of weights
with direct shrink does not depend on η either.

    algorithm    n               projection           ε
    listing      ‖p − p̄‖         p̂ = p/‖p‖            √· + ε      n such that the first update does not rescale
    literal      ‖p‖             p̂ = p/‖p‖            √(· + ε)    Algorithm 1 as printed
    reference    ‖p − p̄‖         p̂ = p/n              √· + ε      the authors' code; Adam's memory m then is not
                                                               bias-corrected, and Nesterov's μ not in S

n is taken from the initial p (‖p‖ in all three if not centred). With η̂_r = √(2ηλ/S), as the authors have it, a is
√(1 − 2ηλ) (SGDM with Polyak's α: √(1 − 2ηλ/(1 − α))) and not 1 − ηλ, a relative difference of ηλ/4 in η̂_r.
Signs have the arcsine sum for S, or (2/π) S, the rule of rotational Lion; all other directions have S(μ, β).

A centred pair is ±(c, −c) and cannot turn, so units of fewer than 3 entries are not centred. Units that are 0
stay 0. Source: Kosson et al., Rotational Equilibrium (arXiv 2305.17212); half-lives in place of η, λ and β are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .. import steady
from ..clock import Clock
from ..counts import complement
from ..memory import blend
from ..noise import ANY, Noise
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..scaling import length, unit
from ..signal import AMBIENT
from .tangent import MATRIX, tangent

UNITS: dict[str, int | tuple[int, ...]] = {"row": -1, "tensor": MATRIX}
LISTING, LITERAL, REFERENCE = "listing", "literal", "reference"
ALGORITHMS = (LISTING, LITERAL, REFERENCE)


@dataclass(frozen=True)
class Rotational(Stage):
    """State: n and ν, (..., m, 1) for rows and (..., 1, 1) for tensors."""

    noise: Noise = ANY
    over: str = "row"  # a key of UNITS
    centred: bool = True
    algorithm: str = LISTING

    local: ClassVar[bool] = False
    pools: ClassVar[bool] = False

    @property
    def apart(self) -> tuple[str, ...]:
        return ("n", "nu")

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        life = ("rotation_memory_half_life",)
        return {
            "eta_r": ("shrink_half_life", *self.noise.coordinates),
            "c_nu": life,
            "r_nu": life,
            "eps_nu": ("rotation_eps",),
        }

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        life = action["rotation_memory_half_life"]
        return {
            "eta_r": self.angle(action, clock),
            "c_nu": complement(clock.dtau, life),
            "r_nu": 1 / complement(clock.tau, life),
            "eps_nu": float(action["rotation_eps"]),
        }

    def angle(self, action: Action, clock: Clock) -> float:
        """η̂_r of this update."""
        mu, c = self.noise.memory(action, clock)
        halvings = clock.q_shrink * clock.dtau
        lost = complement(2 * halvings, action["shrink_half_life"])
        if self.noise.signs:
            return steady.angle(lost, self.noise.amplification(complement(halvings, action["shrink_half_life"]), mu, c))
        return steady.angle(lost, steady.readout(1.0 if self.algorithm == REFERENCE and mu else mu, c))

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        axis = UNITS[self.over]
        if 0 in theta.shape:
            zero = xp.zeros(self._shape(theta), dtype=theta.dtype)
            return {"n": zero, "nu": 1.0 * zero}
        n = length(xp, theta if self.algorithm == LITERAL else self._centre(xp, theta), axis)
        return {"n": n, "nu": xp.zeros_like(n)}

    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays:
        return {}

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        axis, n = UNITS[self.over], s["n"]
        one = xp.ones_like(n)
        by_n = theta * (one / xp.where(n > 0, n, one))
        d = tangent(xp, u[AMBIENT], by_n if self.algorithm == REFERENCE else unit(xp, theta, axis), axis)
        nu = blend(s["nu"], xp.sum(d * d, axis=axis, keepdims=True), k["c_nu"])
        square = k["r_nu"] * nu
        rms = xp.sqrt(square + k["eps_nu"]) if self.algorithm == LITERAL else xp.sqrt(square) + k["eps_nu"]
        moved = theta + (k["eta_r"] * (n * (one / rms))) * d
        return n * unit(xp, self._centre(xp, moved), axis), {**s, "nu": nu}

    def evaluate(self, xp: Namespace, theta: Array, state: Arrays, k: Scalars) -> Array:
        return theta

    def _shape(self, theta: Array) -> Shape:
        return (*theta.shape[:-2], theta.shape[-2] if self.over == "row" else 1, 1)

    def _centre(self, xp: Namespace, x: Array) -> Array:
        axis = UNITS[self.over]
        entries = x.shape[-1] if self.over == "row" else math.prod(x.shape[-2:])
        if not self.centred or entries < 3:
            return x
        return x - (1 / entries) * xp.sum(x, axis=axis, keepdims=True)
