"""Sophia: the memory of gradients over an estimate h of the diagonal curvature, clipped.

    p = ρ n h + ε        u = −clip(z / p, ±1)        h ← h + c_v (ĥ − h) on updates that bring an estimate

ĥ is g² (`hessian = "squares"`, every update) or s², s the gradient of the loss under labels sampled from the
model (`hessian = "samples"`, updates that bring one, every tenth as published); n is the number of labels in s, so
n s² is the Gauss-Newton-Bartlett estimate. Neither memory is corrected for its age. h ages with the increments
of the updates that bring an estimate, and of no others: β₂ is a retention per estimate.

From microbatches: std squares the mean gradient; inv adds the variance of p̄ over all; cf and full take ĥ from
the mean of g² over B (and its variance), the numerator from ḡ_A. p_j is linear in g_j², so that no memory is read
and σ(p̄) = ρ n c_v σ(mean of g²). What is taken off is kept until the next estimate.

Sources: arXiv 2305.14342; 2605.20756 and its authors' code for ε = 1e-12 and the estimators.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..clock import Clock
from ..fold import Fold, group, mean, moments, standard_error
from ..memory import Memories, Readout, blend
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..signal import AMBIENT
from . import STD, lost

HESSIANS = ("squares", "samples")


@dataclass(frozen=True)
class Curvature(Fold):
    """ĥ from a stream: its mean gradient as `name`, or the mean of squares over B; their standard error."""

    estimator: str = STD
    name: str = "gradient"
    numerator: bool = True  # whether this stream also is what m remembers

    @property
    def crossed(self) -> bool:
        return self.estimator in ("cf", "full")

    @property
    def corrected(self) -> bool:
        return self.estimator in ("inv", "full")

    @property
    def least(self) -> int:  # type: ignore[override]
        return {STD: 1, "full": 4}.get(self.estimator, 2)

    def start(self, xp: Namespace, zero: Array) -> Arrays:
        names = [self.name] if self.numerator or not self.crossed else []
        names += ["square"] if self.crossed else []
        return dict.fromkeys([*names, *(("middle", "error") if self.corrected else ())], zero)

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        new = dict(acc)
        which, i = group(j) if self.crossed else ("", j)
        if self.name in acc and which != "b":
            new[self.name] = mean(acc[self.name], g, i)
        if "square" in acc and which == "b":
            new["square"] = mean(acc["square"], g * g, i)
        if "error" in acc and which != "a":
            new["middle"], new["error"] = moments(xp, acc["middle"], acc["error"], g * g, i)
        return new

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        found = {key: x for key, x in acc.items() if key != "middle"}
        if "error" in found:
            found["error"] = standard_error(found["error"], count // 2 if self.crossed else count)
        return found


@dataclass(frozen=True)
class Half(Fold):
    """ḡ_A: the numerator where the curvature comes from another stream."""

    def start(self, xp: Namespace, zero: Array) -> Arrays:
        return {"gradient": zero}

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        which, i = group(j)
        return {"gradient": mean(acc["gradient"], g, i)} if which == "a" else acc

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        return acc


def denominator(h: Array, k: Scalars) -> Array:
    """p = ρ n h + ε."""
    return k["rho_n"] * h + k["eps"]


def taken(xp: Namespace, h: Array, error: Array, k: Scalars) -> Array:
    """min(Var(p̄)/p², 1), `error` that of the mean of squares."""
    return lost(xp, k["rho_n"] * (k["c_v"] * error), denominator(h, k))


@dataclass(frozen=True)
class Curved(Memories):
    """m and h; with sampled gradients also what the last estimate took off, "lost"."""

    sampled: bool = False
    corrected: bool = False

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return super().needs | {"c_v": ("second_memory_half_life",)}

    def init(self, xp: Namespace, g: Arrays) -> Arrays:
        names = ("h", "lost") if self.sampled and self.corrected else ("h",)
        return super().init(xp, g) | {name: xp.zeros_like(g[AMBIENT]) for name in names}

    def __call__(self, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = super().__call__(xp, state, {AMBIENT: g[AMBIENT]}, k)
        measured = g.get("sample") if self.sampled else g[AMBIENT]
        square = g["square"] if "square" in g else None if measured is None else measured * measured
        if square is not None:
            s["h"] = blend(state["h"], square, k["c_v"])
            if "lost" in state:
                s["lost"] = taken(xp, s["h"], g["error"], k)
        return s


@dataclass(frozen=True)
class Clipped(Stage):
    """u = −clip(z/p · (1 − Var(p̄)/p²)₊, ±1)."""

    read: Readout

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return self.read.needs | {"rho_n": ("rho", "labels"), "eps": ("eps",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        own = {"rho_n": action["rho"] * action["labels"], "eps": action["eps"]}
        return self.read.scalars(action, clock, shape) | own

    def __call__(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
        x = self.read(xp, s, g[AMBIENT], k) / denominator(s["h"], k)
        if "lost" in s:
            x = x - s["lost"] * x
        elif "error" in g:
            x = x - taken(xp, s["h"], g["error"], k) * x
        one = xp.ones_like(x)
        x = xp.where(x > one, one, x)
        return {AMBIENT: -xp.where(x < -one, -one, x)}
