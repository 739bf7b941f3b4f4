"""The coordinates of an action: what a recipe may state, with the same meaning in every row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real

from .directions.norm_balls import NORMS
from .directions.normuon import ROW_SCALES
from .directions.polar import EXACT, FORMS, NORMALISES, PRESETS, SETS, WORKS
from .directions.symmetry import ORDERS, POWERS
from .errors import RecipeError, nearest
from .estimators import ESTIMATORS
from .estimators.sophia import HESSIANS
from .motion import EXPONENTIALS, MOTIONS
from .motion.averaged import SHRUNK, WEIGHTS
from .motion.rotational import ALGORITHMS, UNITS
from .noise import CORRELATIONS
from .shrink import KINDS

Value = float | str | bool


@dataclass(frozen=True)
class Coordinate:
    """One coordinate: a number in a range, a half-life in the recipe's unit, a choice, or a switch."""

    name: str
    kind: str  # "number" | "half-life" | "choice" | "switch" | "count" (a whole number) | "exponent" (a number)
    meaning: str
    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    choices: tuple[str, ...] = ()
    never: bool = False  # inf is allowed, and means that

    def check(self, value: object, where: str) -> Value:
        """`value` as a float, str or bool.

        Raises:
            RecipeError: names `where`, the value, and what would be valid.
        """
        if self.kind == "switch":
            if not isinstance(value, bool):
                raise RecipeError(f"{where}: {self.name} is true or false, got {value!r}")
            return value
        if self.kind == "choice":
            short = isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)
            text = f"{value:g}" if short and not isinstance(value, bool) else value
            if text not in self.choices:
                hint = nearest(str(value), self.choices)
                raise RecipeError(f"{where}: {self.name} = {value!r} is not one of {', '.join(self.choices)}{hint}")
            return str(text)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise RecipeError(f"{where}: {self.name} is a number, got {value!r}")
        try:
            number = float(value)
        except OverflowError:
            number = math.nan
        ends = self.never and number == math.inf
        inside = (self.low < number if self.open_low else self.low <= number) and number <= self.high
        if not (ends or (math.isfinite(number) and inside)):
            raise RecipeError(f"{where}: {self.name} must be {self.range}, got {number!r}")
        if self.kind == "count" and not number.is_integer():
            raise RecipeError(f"{where}: {self.name} is a whole number, got {number!r}")
        return number

    @property
    def decides(self) -> bool:
        """It decides what is computed, and not only with which numbers."""
        return self.kind in ("choice", "switch", "count", "exponent")

    @property
    def range(self) -> str:
        """The valid values in words."""
        if self.never:
            return "> 0 (inf means 'never')"
        low = f"{'>' if self.open_low else '>='} {self.low:g}"
        return f"finite and {low}" if self.high == math.inf else f"in [{self.low:g}, {self.high:g}]"


def _half_life(name: str, meaning: str, *, never: bool = False) -> Coordinate:
    return Coordinate(name, "half-life", meaning, open_low=True, never=never)


COORDINATES = {
    c.name: c
    for c in (
        Coordinate("step", "number", "peak additive scale η: how far one update moves, in the norm of the direction"),
        _half_life("memory_half_life", "h_m: the count after which a gradient's weight in m has halved"),
        _half_life("second_memory_half_life", "h_v: the same for the memory v of squares"),
        Coordinate("second_memory", "switch", "keep a memory v of squares and divide by its root"),
        Coordinate(
            "readout",
            "number",
            "μ: the weight of memory in what is read, the rest is the newest gradient",
            high=1.0,
        ),
        _half_life("shrink_half_life", "h_a: the count after which weights without updates have halved", never=True),
        Coordinate("motion", "choice", "how θ moves along the direction", choices=MOTIONS),
        Coordinate("exponential", "choice", "how a rotation is made of its direction", choices=EXPONENTIALS),
        Coordinate("alternate", "switch", "rotate from the right in odd updates and from the left in even ones"),
        Coordinate("shrink", "choice", "which entries shrink, and how shrinking follows the step", choices=KINDS),
        Coordinate(
            "interpolation", "number", "β: where gradients are taken, (1 − β) z + β x between z and its mean", high=1.0
        ),
        Coordinate(
            "shrink_at", "choice", "averaged motion only: the point that z shrinks in proportion to", choices=SHRUNK
        ),
        Coordinate(
            "averaging",
            "choice",
            "η of the weights η² in the mean of z: this one or the largest so far",
            choices=WEIGHTS,
        ),
        Coordinate("averaging_power", "number", "r: weights in the mean grow as τ^r", high=8.0),
        Coordinate("averaging_counts", "switch", "weights in the mean are in proportion to Δτ"),
        Coordinate("strict_mask", "switch", "cautious shrink only: an exact zero of u or θ does not shrink"),
        Coordinate("norm", "choice", "the norm whose ball the direction is steepest in", choices=NORMS),
        Coordinate("polar", "choice", "how the polar factor is computed", choices=(*PRESETS, EXACT, *SETS)),
        Coordinate("polar_form", "choice", "iterate the matrix, or its Gram matrix if it is elongated", choices=FORMS),
        Coordinate("polar_scaling", "choice", "how singular values are brought below 1", choices=NORMALISES),
        Coordinate("polar_work", "choice", "the type that the iteration is carried out in", choices=tuple(WORKS)),
        Coordinate("iterations", "count", "how many steps an iteration takes", low=1, high=100),
        Coordinate("smoothing", "number", "ε of σ/√(σ² + ε²), which smooths the nuclear norm", open_low=True),
        Coordinate("gap", "number", "τ: singular values that are closer than this are not made equal"),
        Coordinate("relative", "switch", "ε or τ is relative to the size of the matrix"),
        Coordinate("exponent", "exponent", "c of (Z Zᵀ)^(−c) Z: 1/2 is the polar factor", high=1.0),
        Coordinate(
            "scale",
            "choice",
            "the length of Muon's or NorMuon's direction, by the shape of the matrix",
            choices=tuple(ROW_SCALES),
        ),
        Coordinate(
            "nuclear_power", "choice", "α: the direction is multiplied by ν^α, ν = <z, u>", choices=tuple(POWERS)
        ),
        Coordinate("order", "choice", "whether rows are brought to length 1 before the polar factor", choices=ORDERS),
        Coordinate("centred", "switch", "subtract the mean of the rows, before and after each stage"),
        Coordinate("bias_correction", "switch", "divide memories by their total weight 1 − 2^(−τ/h)"),
        Coordinate("l2", "number", "λ of a penalty ½λ‖θ‖² whose gradient enters the memories"),
        Coordinate("estimator", "choice", "how the update is estimated from microbatches", choices=ESTIMATORS),
        Coordinate("hessian", "choice", "squares of which gradients estimate the curvature", choices=HESSIANS),
        _half_life("root_interval", "the count between two computations of Shampoo's roots"),
        Coordinate("rho", "number", "ρ: the curvature counts this much; larger clips less", open_low=True),
        Coordinate("labels", "number", "n: sampled labels in one estimate of the curvature", open_low=True),
        Coordinate(
            "eps",
            "number",
            "ε added to what is divided by: roots of squares, lengths of rows, Gram matrices",
            open_low=True,
        ),
        Coordinate(
            "target_rms",
            "number",
            "R: solve for the η that brings the group's RMS to R; step bounds it",
            open_low=True,
        ),
        Coordinate("solve", "choice", "what brings the group's RMS to target_rms", choices=("step", "shrink")),
        Coordinate("steady_rms", "number", "ρ: the RMS that weights settle at, instead of a step", open_low=True),
        Coordinate("correlation", "choice", "how sign updates are taken to correlate in time", choices=CORRELATIONS),
        _half_life("rotation_memory_half_life", "h_ν: that of the mean square ν of what turns a unit"),
        Coordinate("rotation_unit", "choice", "what turns: each row, or the whole matrix", choices=tuple(UNITS)),
        Coordinate("rotation_centred", "switch", "every unit has mean 0"),
        Coordinate("rotation_algorithm", "choice", "which published form of the rotation", choices=ALGORITHMS),
        Coordinate("rotation_eps", "number", "ε added to the root of ν", open_low=True),
        Coordinate("retraction", "choice", "how a step returns to its sphere", choices=("normalise", "slerp")),
    )
}

# What other libraries call it, for the hint of an error message.
ELSEWHERE = {
    "lr": "step",
    "learning_rate": "step",
    "betas": "memory_half_life and second_memory_half_life",
    "beta": "memory_half_life",
    "beta1": "memory_half_life",
    "beta2": "second_memory_half_life",
    "momentum": "memory_half_life",
    "nesterov": "readout",
    "weight_decay": "shrink_half_life",
    "wd": "shrink_half_life",
    "ns_coefficients": "polar",
}


def hint(key: str, valid: Iterable[str]) -> str:
    """What an unknown key may have meant."""
    if key in ELSEWHERE:
        return f"; in half-lives it is {ELSEWHERE[key]} (`dualopt convert` gives the values)"
    return nearest(key, valid)
