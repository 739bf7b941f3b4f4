"""AdamW from microbatches: p_j = √(r_v (v + c_v (g_j² − v))), v before the update; p = √v̂ + ε after it.

Symbols: c = 1 − β and r = 1/(1 − β^τ) are scalars of the host, so that m̂_j = r_m (m + c_m (g_j − m)). A and B
are the even and the odd microbatches as they come (the authors': the first and the second half), so that their
number need not be known. With two of them and ε = 1e-8, an entry that is 0 in one microbatch divides the other
by ε in `loo`; that is the estimator, and `loo_jensen` then gives 0.

Source: arXiv 2605.20756 and its authors' code. There `pre_ema` has 3/4 where the second derivative has 1/4, which
corrects 5/3 as much as ε → 0; here the derivative is the right one. sym: as in the code, each inverse corrected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..directions.elementwise import Rms
from ..fold import Fold, group, mean, moments, standard_error
from ..memory import Memories, Readout, blend
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..signal import AMBIENT
from . import lost


@dataclass(frozen=True)
class AdamFold(Fold):
    """What the folds of this row share: how m and v are read."""

    read: Readout
    rms: Rms

    accumulated: ClassVar[tuple[str, ...]] = ()
    least: ClassVar[int] = 2

    def start(self, xp: Namespace, zero: Array) -> Arrays:
        return dict.fromkeys(self.accumulated, zero)

    def root(self, xp: Namespace, square: Array, state: Arrays, k: Scalars) -> Array:
        """√v̂ had `square` been the square of the gradient."""
        return self.rms.root(xp, blend(state["v"], square, k["c_v"]), k)

    def numerator(self, xp: Namespace, g: Array, state: Arrays, k: Scalars) -> Array:
        """What would be read had g been the gradient."""
        return self.read(xp, {"m": blend(state["m"], g, k["c_m"])}, g, k)


@dataclass(frozen=True)
class Inverse(AdamFold):
    """inv: ḡ, and the standard error of p̄ = mean p_j."""

    accumulated: ClassVar[tuple[str, ...]] = ("gradient", "p", "error")

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        p, error = moments(xp, acc["p"], acc["error"], self.root(xp, g * g, state, k), j)
        return {"gradient": mean(acc["gradient"], g, j), "p": p, "error": error}

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        return {"gradient": acc["gradient"], "error": standard_error(acc["error"], count)}


@dataclass(frozen=True)
class Cross(AdamFold):
    """cf: ḡ_A, and the mean of g² over B."""

    accumulated: ClassVar[tuple[str, ...]] = ("gradient", "square")

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        which, i = group(j)
        if which == "a":
            return {**acc, "gradient": mean(acc["gradient"], g, i)}
        return {**acc, "square": mean(acc["square"], g * g, i)}

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        return acc


@dataclass(frozen=True)
class Full(Cross):
    """full: the same, and the standard error over B of p̄; of the mean of g² if `squares` (pre_ema)."""

    squares: bool = False

    accumulated: ClassVar[tuple[str, ...]] = ("gradient", "square", "p", "error")
    least: ClassVar[int] = 4

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        which, i = group(j)
        acc = super().add(xp, acc, g, state, k, j)
        if which == "a":
            return acc
        x = g * g if self.squares else self.root(xp, g * g, state, k)
        p, error = moments(xp, acc["p"], acc["error"], x, i)
        return {**acc, "p": p, "error": error}

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        error = standard_error(acc["error"], count // 2)
        return {"gradient": acc["gradient"], "square": acc["square"], "error": error}


@dataclass(frozen=True)
class Symmetric(AdamFold):
    """sym: ḡ, and the update ½ (m̂_A p_B⁻¹ + m̂_B p_A⁻¹) itself, which reads the old memories twice."""

    accumulated: ClassVar[tuple[str, ...]] = tuple(f"{x}_{of}" for of in "ab" for x in ("mean", "square", "p", "error"))
    least: ClassVar[int] = 4

    def start(self, xp: Namespace, zero: Array) -> Arrays:
        return {"gradient": zero, **super().start(xp, zero)}

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        of, i = group(j)
        square = g * g
        p, error = moments(xp, acc[f"p_{of}"], acc[f"error_{of}"], self.root(xp, square, state, k), i)
        return {
            **acc,
            "gradient": mean(acc["gradient"], g, j),
            f"mean_{of}": mean(acc[f"mean_{of}"], g, i),
            f"square_{of}": mean(acc[f"square_{of}"], square, i),
            f"p_{of}": p,
            f"error_{of}": error,
        }

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        def half(over: str, under: str, n: int) -> Array:
            p = self.root(xp, acc[f"square_{under}"], state, k) + k["eps"]
            x = self.numerator(xp, acc[f"mean_{over}"], state, k) / p
            return x - lost(xp, standard_error(acc[f"error_{under}"], n), p) * x

        both = half("a", "b", count // 2) + half("b", "a", count - count // 2)
        return {"gradient": acc["gradient"], "update": 0.5 * both}


MOST = 2.0**120


def limited(xp: Namespace, x: Array, bound: Array) -> Array:
    """x, at most `bound` in magnitude."""
    return xp.where(x > bound, bound, xp.where(x < -bound, -bound, x))


def quotient(xp: Namespace, x: Array, d: Array) -> Array:
    """x/d for d > 0, at most `MOST` in magnitude."""
    one = xp.ones_like(d)
    return limited(xp, x, MOST * xp.where(d < 1, d, one)) / d


def times(xp: Namespace, x: Array, d: Array) -> Array:
    """d x for d >= 0, at most `MOST` in magnitude."""
    one = xp.ones_like(d)
    return d * limited(xp, x, (MOST * one) / xp.where(d > 1, d, one))


@dataclass(frozen=True)
class LeaveOneOut(AdamFold):
    """loo: ḡ, and the update u_1 = mean_r m̂_r/d_r, d_r = √v̂ + ε had ḡ without g_r been the gradient.

    With `jensen` u_1 − Var(d) · mean_r m̂_r/d_r³, Var the estimate over r with m − 1 in the denominator, and 0
    where that has not the sign of u_1. A d_r that is ε beside others of 1e15 takes this out of float32: quotients
    and products are kept below 2^120.
    """

    jensen: bool = False

    passes: ClassVar[int] = 2
    accumulated: ClassVar[tuple[str, ...]] = ("gradient",)

    def add(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
        return {"gradient": mean(acc["gradient"], g, j)}

    def turn(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        return acc | dict.fromkeys(("u1", "u3", "d", "spread"), xp.zeros_like(acc["gradient"]))

    def again(self, xp: Namespace, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int, count: int) -> Arrays:
        others = acc["gradient"] + (1 / (count - 1)) * (acc["gradient"] - g)
        d = self.root(xp, others * others, state, k) + k["eps"]
        x = quotient(xp, self.numerator(xp, g, state, k), d)
        if not self.jensen:
            return {**acc, "u1": mean(acc["u1"], x, j)}
        middle, spread = moments(xp, acc["d"], acc["spread"], d, j)
        u3 = mean(acc["u3"], quotient(xp, quotient(xp, x, d), d), j)
        return {**acc, "u1": mean(acc["u1"], x, j), "u3": u3, "d": middle, "spread": spread}

    def done(self, xp: Namespace, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
        u1 = acc["u1"]
        if not self.jensen:
            return {"gradient": acc["gradient"], "update": u1}
        deviation = math.sqrt(count / (count - 1)) * acc["spread"]
        u = u1 - times(xp, times(xp, acc["u3"], deviation), deviation)
        same = ((u > 0) & (u1 > 0)) | ((u < 0) & (u1 < 0))
        return {"gradient": acc["gradient"], "update": xp.where(same, u, xp.zeros_like(u))}


@dataclass(frozen=True)
class Moments(Memories):
    """m and v of θ itself; where "square" was measured, that enters v instead of g²."""

    second: bool = True

    def __call__(self, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = super().__call__(xp, state, {AMBIENT: g[AMBIENT]}, k)
        return s | {"v": blend(state["v"], g["square"], k["c_v"])} if "square" in g else s


@dataclass(frozen=True)
class Reading(Stage):
    """u = −z/(√v̂ + ε), as AdamW reads its memories: cf, in which only what enters them differs."""

    read: Readout
    rms: Rms

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return self.read.needs | self.rms.needs

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return self.read.scalars(action, clock, shape) | self.rms.scalars(action, clock, shape)

    def __call__(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
        return {AMBIENT: self.rms(xp, self.read(xp, s, g[AMBIENT], k), s, k)}


@dataclass(frozen=True)
class Corrected(Reading):
    """inv and full: u (1 − Var(p̄)/p²)₊."""

    def __call__(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
        u = super().__call__(xp, s, g, k)[AMBIENT]
        return {AMBIENT: u - self.lost(xp, s, g, k) * u}

    def lost(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Array:
        return lost(xp, g["error"], self.rms.root(xp, s["v"], k) + k["eps"])


@dataclass(frozen=True)
class PreCorrected(Corrected):
    """pre_ema: f − ½ f'' Var(s̄), f(s) = 1/(√x + ε) at x = a + b s, which is v̂; s̄ the mean of g² over B.

    f'' = b² (1/(2 x q³) + 1/(4 x^{3/2} q²)), q = √x + ε. With e = b σ(s̄)/x, the relative error of v̂, and
    ρ = √x/q the part that is taken from f is e² (¼ρ² + ⅛ρ), at most all of it.
    """

    def lost(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Array:
        v, root = s["v"], self.rms.root(xp, s["v"], k)
        one = xp.ones_like(v)
        relative = (k["c_v"] * g["error"]) / xp.where(v > 0, v, one)
        ratio = root / (root + k["eps"])
        part = relative * relative * (ratio * (0.25 * ratio + 0.125))
        return xp.where(part < one, part, one)


@dataclass(frozen=True)
class Folded(Reading):
    """sym, loo and loo_jensen: u is what the fold made. The memories follow ḡ as ever."""

    def __call__(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
        return {AMBIENT: -g["update"]}


def adam_fold(name: str, read: Readout, rms: Rms) -> AdamFold:
    """The fold of an estimator other than std."""
    return {
        "cf": Cross(read, rms),
        "inv": Inverse(read, rms),
        "full": Full(read, rms),
        "pre_ema": Full(read, rms, squares=True),
        "sym": Symmetric(read, rms),
        "loo": LeaveOneOut(read, rms),
        "loo_jensen": LeaveOneOut(read, rms, jensen=True),
    }[name]


def adam_direction(name: str, read: Readout, rms: Rms) -> Reading:
    """The direction of an estimator other than std."""
    kinds = {"cf": Reading, "inv": Corrected, "full": Corrected, "pre_ema": PreCorrected}
    return kinds.get(name, Folded)(read, rms)
