"""How the step η and the shrink half-life h_a change with the training count τ.

A schedule gives two numbers for the update that ends at τ (so a warm-up starts above zero):

    η = q · step                          0 ≤ q ≤ 1
    a = σ_peak^q_shrink,   σ_peak = 2^(−Δτ/h_a)

``drives = "step"`` keeps the shrink (q_shrink = 1), ``"both"`` anneals it along (q_shrink = q).

The equal-weight shapes give every update the same weight in the final parameters, which holds exactly
when a_j = η_j / η_{j−1} (Su, kexue.fm 11459, in action form). They therefore always set both numbers:

    equal-weight       h_a stays:                    η_j = a η_{j−1}           so q = 2^(−τ/h_a)
    equal-weight-14    a = e^(−λη), λ constant       η_j = W(λ η_{j−1}) / λ    (eq 14, Lambert W)
    equal-weight-16    a = 1 − λη,  λ constant       q = 1 / (1 + λη_max s)    (eq 16), s = τ / per_update
    equal-weight-17    a = e^(−λη), λ ∝ η            η_j = √(W(2αη²_{j−1}) / (2α))    (eq 17)

λ is fixed by the recipe's shrink half-life at the peak. Between whole updates eq 14 and 17 are
interpolated geometrically. Whatever the increments, a_j = η_j / η_{j−1} holds, so every update weighs the same.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from .counts import LN2, complement
from .errors import CountError, RecipeError, nearest

Curve = Literal[
    "constant", "linear", "cosine", "warmup-stable-decay",
    "equal-weight", "equal-weight-14", "equal-weight-16", "equal-weight-17",
]  # fmt: skip
SHAPES: tuple[str, ...] = get_args(Curve)
Drives = Literal["step", "both"]


def lambert_w(x: float) -> float:
    """The W ≥ 0 with W e^W = x, for x ≥ 0, by Newton's iteration to the last digit."""
    w = math.log1p(x) if x < 3 else math.log(x) - math.log(math.log(x))
    for _ in range(50):
        e = math.exp(w)
        step = (w * e - x) / (e * (1 + w))
        w -= step
        if abs(step) <= 1e-16 * abs(w):
            break
    return w


def next_14(x: float) -> float:
    """λη_j from λη_{j−1} (eq 14): x_{j−1} = x_j e^(x_j)."""
    return lambert_w(x)


def next_17(x: float) -> float:
    """αη²_j from αη²_{j−1} (eq 17): √x_{j−1} = √x_j e^(x_j)."""
    return lambert_w(2 * x) / 2


def next_17_linear(x: float) -> float:
    """αη²_j from αη²_{j−1} for a = 1 − λη (eq 17, linear shrink): √x_{j−1} = √x_j / (1 − x_j)."""
    return (math.sqrt(1 + 4 * x) - 1) ** 2 / (4 * x) if x > 0 else 0.0


LARGEST = sys.float_info.max  # an int may be larger
LONGEST = 2**24  # updates of a schedule that goes through all of them: 128 MB, and a minute


@lru_cache(maxsize=64)
def _path(advance: Callable[[float], float], start: float) -> array[float]:
    """The orbit of `start` under `advance`, extended on demand; shared by all updates of a run."""
    return array("d", [start])


def _orbit(advance: Callable[[float], float], start: float, s: float) -> float:
    """Element s of the orbit, geometrically interpolated between whole s."""
    path = _path(advance, start)
    whole = math.floor(s)
    if whole > LONGEST:
        raise CountError(f"an equal-weight schedule of {s:.3g} updates is longer than {LONGEST}; state per_update")
    while len(path) < whole + 2:
        path.append(advance(path[-1]))
    return path[whole] * math.pow(path[whole + 1] / path[whole], s - whole)


@dataclass(frozen=True)
class Schedule:
    """A shape over the count; lengths are in the recipe's unit.

    Args:
        shape: one of `SHAPES`.
        warmup: length of a linear rise from 0 (any shape that is not equal-weight).
        total: where linear, cosine and warmup-stable-decay end; constant at `floor` afterwards.
        decay: length of the final linear fall of warmup-stable-decay.
        floor: q at `total`.
        drives: ``"step"`` or ``"both"``.
    """

    shape: Curve = "constant"
    warmup: float = 0.0
    total: float | None = None
    decay: float | None = None
    floor: float = 0.0
    drives: Drives = "step"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise RecipeError(
                f"[schedule] shape: {self.shape!r} is not one of {', '.join(SHAPES)}{nearest(str(self.shape), SHAPES)}"
            )
        if self.drives not in get_args(Drives):
            raise RecipeError(f"[schedule] drives: {self.drives!r} is neither 'step' nor 'both'")
        for name in ("warmup", "total", "decay", "floor"):
            value = getattr(self, name)
            if value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= LARGEST:
                raise RecipeError(f"[schedule] {name}: must be a finite number >= 0, got {value!r}")
            object.__setattr__(self, name, float(value))
        if self.floor and self.shape == "constant":
            raise RecipeError("[schedule] shape = 'constant' does not use 'floor'")
        if self.floor > 1:
            raise RecipeError(f"[schedule] floor: the fraction of the peak step that remains, got {self.floor!r} > 1")
        uses = {"linear": {"total"}, "cosine": {"total"}, "warmup-stable-decay": {"total", "decay"}}.get(
            self.shape, set()
        )
        for name in ("total", "decay"):
            if (getattr(self, name) is not None) != (name in uses):
                verb = "needs" if name in uses else "does not use"
                raise RecipeError(f"[schedule] shape = {self.shape!r} {verb} {name!r}")
        if self.equal_weight and (self.warmup or self.floor):
            raise RecipeError(
                f"[schedule] shape = {self.shape!r} has neither warmup nor floor: weights would not be equal"
            )
        if self.total is not None and self.warmup + (self.decay or 0) > self.total:
            raise RecipeError(f"[schedule] warmup + decay exceed total = {self.total!r}")

    def scaled(self, factor: float) -> Schedule:
        """The same shape with every length multiplied by `factor`: a change of unit."""
        lengths = (self.warmup, self.total, self.decay)
        warmup, total, decay = (None if x is None else x * factor for x in lengths)
        return dataclasses.replace(self, warmup=warmup or 0.0, total=total, decay=decay)

    @property
    def equal_weight(self) -> bool:
        return self.shape.startswith("equal-weight")

    def q(self, tau: float) -> float:
        """q at the count `tau`, in the unit of this schedule's lengths, for the shapes with lengths."""
        if tau < self.warmup:
            return tau / self.warmup
        if self.shape == "constant" or self.total is None:
            return 1.0
        length = self.decay if self.decay is not None else self.total - self.warmup
        left = min(max((self.total - tau) / length, 0.0), 1.0) if length > 0 else float(tau < self.total)
        if self.shape == "cosine":
            left = (1 - math.cos(math.pi * left)) / 2
        return self.floor + (1 - self.floor) * left

    def q_equal(self, tau: float, half_life: float, per_update: float) -> float:
        """q at the count `tau` for the equal-weight shapes; counts in one common unit."""
        s = tau / per_update
        if math.isinf(half_life):
            return 1.0
        if self.shape == "equal-weight":
            return math.exp2(-tau / half_life)
        if self.shape == "equal-weight-16":
            return 1 / (1 + complement(per_update, half_life) * s)
        start = LN2 * per_update / half_life  # λη at the peak: e^(−λη) = σ_peak
        if self.shape == "equal-weight-14":
            return _orbit(next_14, start, s) / start
        return math.sqrt(_orbit(next_17, start, s) / start)

    def at(self, tau: float, dtau: float, half_life: float, per_update: float) -> tuple[float, float]:
        """(q, q_shrink) of the update from `tau − dtau` to `tau` in a group with this shrink half-life."""
        if not self.equal_weight:
            q = self.q(tau)
            return q, q if self.drives == "both" else 1.0
        q = self.q_equal(tau, half_life, per_update)
        if math.isinf(half_life):
            return q, 1.0
        if self.shape == "equal-weight":
            return q, 1.0
        before = self.q_equal(tau - dtau, half_life, per_update)
        return q, math.log2(before / q) * half_life / dtau
