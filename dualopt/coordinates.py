"""The coordinates of an action: what a recipe may state, with the same meaning in every row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real

from .directions.norm_balls import MUON_SCALES, NORMS
from .directions.polar import EXACT, FORMS, NORMALISES, SETS
from .errors import RecipeError, nearest
from .motion import MOTIONS
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
            if value not in self.choices:
                hint = nearest(str(value), self.choices)
                raise RecipeError(f"{where}: {self.name} = {value!r} is not one of {', '.join(self.choices)}{hint}")
            return str(value)
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
        Coordinate(
            "readout",
            "number",
            "μ: the weight of memory in what is read, the rest is the newest gradient",
            high=1.0,
        ),
        _half_life("shrink_half_life", "h_a: the count after which weights without updates have halved", never=True),
        Coordinate("motion", "choice", "how θ moves along the direction", choices=MOTIONS),
        Coordinate("shrink", "choice", "which entries shrink, and how shrinking follows the step", choices=KINDS),
        Coordinate("strict_mask", "switch", "cautious shrink only: an exact zero of u or θ does not shrink"),
        Coordinate("norm", "choice", "the norm whose ball the direction is steepest in", choices=NORMS),
        Coordinate("polar", "choice", "how the polar factor is computed", choices=(*SETS, EXACT)),
        Coordinate("polar_form", "choice", "iterate the matrix, or its Gram matrix if it is elongated", choices=FORMS),
        Coordinate("polar_scaling", "choice", "how singular values are brought below 1", choices=NORMALISES),
        Coordinate("iterations", "count", "how many steps an iteration takes", low=1, high=100),
        Coordinate("smoothing", "number", "ε of σ/√(σ² + ε²), which smooths the nuclear norm", open_low=True),
        Coordinate("gap", "number", "τ: singular values that are closer than this are not made equal"),
        Coordinate("relative", "switch", "ε or τ is relative to the size of the matrix"),
        Coordinate("exponent", "exponent", "c of (Z Zᵀ)^(−c) Z: 1/2 is the polar factor", high=1.0),
        Coordinate("scale", "choice", "Muon's factor for the shape of the matrix", choices=tuple(MUON_SCALES)),
        Coordinate("bias_correction", "switch", "divide memories by their total weight 1 − 2^(−τ/h)"),
        Coordinate("l2", "number", "λ of a penalty ½λ‖θ‖² whose gradient enters the memories"),
        Coordinate("eps", "number", "ε added to the root of the second memory", open_low=True),
        Coordinate(
            "target_rms",
            "number",
            "R: solve for the η that brings the group's RMS to R; step bounds it",
            open_low=True,
        ),
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
