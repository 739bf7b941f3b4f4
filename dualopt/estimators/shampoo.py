"""Shampoo: memories L, R of G Gᵀ and Gᵀ G, whose inverse fourth roots stand on either side of the readout.

    L ← L + c_f (S − L), S = G Gᵀ (..., m, m)        R ← R + c_f (S' − R), S' = Gᵀ G (..., n, n)
    u = −(L̂ + ε)^(−1/4) z (R̂ + ε)^(−1/4)             L̂ = r_f L, R̂ = r_f R

r_f = 1/(1 − 2^(−τ_f/h)) if corrected for age, else 1. The roots are computed at the first update and at each
that begins at, or passes, a multiple of the count `root_interval`; L and R take part in those updates only, so τ_f
is the sum of their increments, and β₂ a retention per root. Which update that is, is a 0 or 1 among the scalars,
`fresh`: a compiled step computes the roots always and keeps what it should, as its structure cannot change; where
scalars are numbers of the host, roots that would not be kept are not computed.

From microbatches (`inv`, `full`): λ^(−1/4) → λ^(−1/4) (1 − (5/32) Var(λ)/λ²)₊ for every eigenvalue λ of L̂ + ε,
with the variance of the mean over j of what λ would be had S been G_j G_jᵀ: qᵀ G_j G_jᵀ q = ‖G_jᵀ q‖² for its
eigenvector q, which is known after a first pass. std and inv feed ḡ ḡᵀ, cf and full the mean of g gᵀ over B, and
ḡ_A to the numerator. Sources: arXiv 1802.09568, 2605.20756 and its authors' code, which has no correction for age
and an interval of 10; that correction is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..counts import complement
from ..factorise import eigh
from ..fold import Fold, group, mean, moments, standard_error
from ..memory import Memories, Readout, blend
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..signal import AMBIENT
from . import lost

SIDES = {"L": "left", "R": "right"}  # key of the state: what its evidence is called
MEASURED = tuple(f"{side}{what}" for side in SIDES.values() for what in ("", "_values", "_vectors", "_error"))


def fresh(action: Action, clock: Clock) -> bool:
    """Whether a multiple of the interval lies in [begin, end) of this update."""
    begin, interval = clock.tau - clock.dtau, action["root_interval"]
    return bool(math.ceil(begin / interval) * interval < clock.tau)


def idle(k: Scalars) -> bool:
    """True if the host knows that roots would not be kept; within a compiled step it never does."""
    return isinstance(k["fresh"], float) and k["fresh"] == 0


def product(xp: Namespace, side: str, g: Array) -> Array:
    """g gᵀ or gᵀ g."""
    gt = xp.matrix_transpose(g)
    return xp.matmul(g, gt) if side == "L" else xp.matmul(gt, g)


def spectrum(xp: Namespace, factor: Array, k: Scalars) -> tuple[Array, Array]:
    """(λ, Q) of r_f F + ε for a factor F, λ (..., d) > 0 in any order."""
    values, vectors = eigh(xp, 0.5 * (factor + xp.matrix_transpose(factor)))
    values = xp.where(values > 0, values, xp.zeros_like(values))
    return k["r_f"] * values + k["eps"], vectors


def inverse_root(xp: Namespace, values: Array, vectors: Array, error: Array | None) -> Array:
    """Q diag(λ^(−1/4) (1 − (5/32) σ²/λ²)₊) Qᵀ, `error` σ(λ)."""
    d = xp.ones_like(values) / xp.sqrt(xp.sqrt(values))
    if error is not None:
        d = d - lost(xp, math.sqrt(5 / 32) * error, values) * d
    return xp.matmul(vectors * d[..., None, :], xp.matrix_transpose(vectors))


@dataclass(frozen=True)
class Factored(Fold):
    """Evidence of cf, inv and full: ḡ; "left", "right", the means over B; and for inv and full the eigenvalues,
    their vectors and their errors. A second pass is needed for the errors alone."""

    estimator: str

    apart: ClassVar[tuple[str, ...]] = MEASURED

    @property
    def passes(self) -> int:  # type: ignore[override]
        return 1 if self.estimator == "cf" else 2

    @property
    def least(self) -> int:  # type: ignore[override]
        return 4 if self.estimator == "full" else 2

    @property
    def crossed(self) -> bool:
        return self.estimator != "inv"

    def start(self, xp: Namespace, zero: Array) -> Arrays:
        factors = {name: product(xp, side, zero) for side, name in SIDES.items()} if self.crossed else {}
        return {"gradient": zero, **factors}

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        which, i = group(j) if self.crossed else ("a", j)
        if which == "a":
            return {**acc, "gradient": mean(acc["gradient"], g, i)}
        if idle(k):
            return acc
        return {**acc, **{name: mean(acc[name], product(xp, side, g), i) for side, name in SIDES.items()}}

    def turn(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        if self.passes == 1 or idle(k):
            return acc
        new = dict(acc)
        for side, name in SIDES.items():
            values, vectors = spectrum(xp, remembered(xp, side, state, acc, acc["gradient"], k), k)
            new |= {f"{name}_values": values, f"{name}_vectors": vectors}
            new |= {f"{name}_middle": xp.zeros_like(values), f"{name}_error": xp.zeros_like(values)}
        return new

    def again(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int, count: int) -> Arrays:
        which, i = group(j) if self.crossed else ("b", j)
        if which == "a" or idle(k):
            return acc
        new = dict(acc)
        for side, name in SIDES.items():
            across = xp.matrix_transpose(g) if side == "L" else g
            along = xp.matmul(across, acc[f"{name}_vectors"])  # columns Gᵀ q
            drawn = xp.sum(along * along, axis=-2)
            middle, error = moments(xp, acc[f"{name}_middle"], acc[f"{name}_error"], drawn, i)
            new |= {f"{name}_middle": middle, f"{name}_error": error}
        return new

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        found = {key: x for key, x in acc.items() if not key.endswith("_middle")}
        drawn = count // 2 if self.crossed else count
        for name in (f"{name}_error" for name in SIDES.values()):
            if name in found:
                found[name] = k["r_f"] * (k["c_f"] * standard_error(found[name], drawn))
        return found


def remembered(xp: Namespace, side: str, state: Arrays, measured: Arrays, g: Array, k: Scalars) -> Array:
    """L or R after the update."""
    now = measured[SIDES[side]] if SIDES[side] in measured else product(xp, side, g)
    return blend(state[side], now, k["c_f"])


@dataclass(frozen=True)
class Factors(Memories):
    """m of θ, L and R, and their roots as they were last computed, "root_L" and "root_R"."""

    corrected: bool = True

    local: ClassVar[bool] = False

    @property
    def apart(self) -> tuple[str, ...]:
        return (*SIDES, *(f"root_{side}" for side in SIDES))

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        own = ("second_memory_half_life", "root_interval")
        return super().needs | {"c_f": own, "r_f": own, "fresh": ("root_interval",), "eps": ("eps",)}

    def tally(self, action: Action, clock: Clock) -> dict[str, float]:
        return {"root_age": clock.sums.get("root_age", 0.0) + (clock.dtau if fresh(action, clock) else 0)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        life, now = action["second_memory_half_life"], fresh(action, clock)
        age = clock.sums.get("root_age", 0.0)
        return {
            "c_m": complement(clock.dtau, action["memory_half_life"]),
            "c_f": complement(clock.dtau, life) if now else 0.0,
            "r_f": 1 / complement(age, life) if self.corrected and age else 1.0,
            "fresh": float(now),
            "eps": float(action["eps"]),
        }

    def init(self, xp: Namespace, g: Arrays) -> Arrays:
        zero = xp.zeros_like(g[AMBIENT])
        factors = {key: product(xp, side, zero) for side in SIDES for key in (side, f"root_{side}")}
        return super().init(xp, g) | factors

    def __call__(self, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = super().__call__(xp, state, {AMBIENT: g[AMBIENT]}, k)
        if idle(k):
            return s
        for side, name in SIDES.items():
            s[side] = remembered(xp, side, state, g, g[AMBIENT], k)
            if f"{name}_vectors" in g:
                root = inverse_root(xp, g[f"{name}_values"], g[f"{name}_vectors"], g[f"{name}_error"])
            else:
                root = self.root(xp, s[side], k)
            kept = state[f"root_{side}"]
            s[f"root_{side}"] = xp.where(xp.zeros_like(kept) + k["fresh"] > 0, root, kept)
        return s

    def root(self, xp: Namespace, factor: Array, k: Scalars) -> Array:
        """(r_f F + ε)^(−1/4)."""
        return inverse_root(xp, *spectrum(xp, factor, k), None)


@dataclass(frozen=True)
class Rooted(Stage):
    """u = −root_L z root_R."""

    read: Readout

    local: ClassVar[bool] = False

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return self.read.needs

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return self.read.scalars(action, clock, shape)

    def __call__(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
        z = self.read(xp, s, g[AMBIENT], k)
        return {AMBIENT: -xp.matmul(xp.matmul(s["root_L"], z), s["root_R"])}
