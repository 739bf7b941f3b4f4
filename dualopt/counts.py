"""Training counts, and the exact maps between half-lives and retentions.

A count τ is a non-negative integer number of updates, samples or tokens. A half-life h is measured in
the same unit. Over an increment Δτ

    retention   2^(−Δτ/h)         complement   1 − 2^(−Δτ/h)  =  −expm1(−ln2·Δτ/h)

The complement is what arrays are multiplied with: at Δτ/h = 1e-7 a float32 retention is off by 1 % in
1 − β, a float32 complement by 6e-8. All arithmetic here is float64 on the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from .errors import CountError, nearest

LN2 = math.log(2.0)
Unit = Literal["updates", "samples", "tokens", "epochs"]
UNITS: tuple[str, ...] = get_args(Unit)
LARGEST_COUNT = 2**63 - 1  # of a run: counts are 64-bit integers wherever arrays hold them


def _halvings(dtau: float, half_life: float) -> float:
    """Δτ/h, the number of halvings in an increment; 0 for h = ∞ or Δτ = 0, ∞ for h = 0."""
    if not (math.isfinite(dtau) and dtau >= 0):
        raise CountError(f"increment must be finite and >= 0, got {dtau!r}")
    if math.isnan(half_life) or half_life < 0:
        raise CountError(f"half-life must be >= 0 (inf means 'never'), got {half_life!r}")
    if dtau == 0 or half_life == math.inf:
        return 0.0
    return math.inf if half_life == 0 else dtau / half_life


def retention(dtau: float, half_life: float) -> float:
    """2^(−Δτ/h): the fraction kept over Δτ. 1 for h = ∞, 0 for h = 0.

    >>> retention(256, 1024)
    0.8408964152537145
    """
    return math.exp2(-_halvings(dtau, half_life))


def complement(dtau: float, half_life: float) -> float:
    """1 − 2^(−Δτ/h) without cancellation: the fraction lost over Δτ. 0 for h = ∞, 1 for h = 0."""
    return -math.expm1(-LN2 * _halvings(dtau, half_life))


def halving_exponent(retained: float) -> float:
    """H = −log2(x) of a retained fraction x in [0, 1]; H of a product is the sum of the H."""
    if not 0 <= retained <= 1:
        raise CountError(f"a retained fraction lies in [0, 1], got {retained!r}")
    return math.inf if retained == 0 else -math.log2(retained) + 0.0


def half_life(retained: float, dtau: float) -> float:
    """h with 2^(−Δτ/h) = retained. ∞ for 1, 0 for 0. Inverse of `retention` in its second argument.

    >>> half_life(0.5, 100)
    100.0
    """
    if not (math.isfinite(dtau) and dtau > 0):
        raise CountError(f"increment must be finite and > 0, got {dtau!r}")
    exponent = halving_exponent(retained)
    return math.inf if exponent == 0 else dtau / exponent


def life_of_loss(lost: float, dtau: float) -> float:
    """h with 1 − 2^(−Δτ/h) = lost, as exact for small losses: the inverse of `complement`. ∞ for 0, 0 for 1."""
    if not (math.isfinite(dtau) and dtau > 0):
        raise CountError(f"increment must be finite and > 0, got {dtau!r}")
    if not 0 <= lost <= 1:
        raise CountError(f"a lost fraction lies in [0, 1], got {lost!r}")
    if lost in (0, 1):
        return 0.0 if lost else math.inf
    return -LN2 * dtau / math.log1p(-lost)


def rescale(retained: float, r: float) -> float:
    """β* = β^r: the retention after the increment changed by the factor r = Δτ*/Δτ; h is unchanged."""
    if not (math.isfinite(r) and r >= 0):
        raise CountError(f"ratio of increments must be finite and >= 0, got {r!r}")
    exponent = halving_exponent(retained)
    return 1.0 if r == 0 or exponent == 0 else math.exp2(-exponent * r)


def increment(value: object, where: str = "count") -> int:
    """A checked Δτ: a positive integer (numpy integers and integral floats included).

    Raises:
        CountError: for booleans, fractions, NaN, zero and negative numbers.
    """
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        number = -1
    boolean = isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
    if boolean or number != value or not 0 < number <= LARGEST_COUNT:
        raise CountError(f"{where}: an update counts a positive whole number, got {value!r}")
    return int(number)


@dataclass(frozen=True)
class Count:
    """What τ counts, and how much one update usually adds.

    Args:
        unit: ``updates``, ``samples``, ``tokens`` or ``epochs``. Counts themselves are integers in the
            base unit: that of `unit`, or samples if the unit is epochs.
        per_update: default Δτ in the base unit; a step may state its own.
        samples_per_epoch: needed by ``epochs``, and to convert to or from epochs.
        tokens_per_sample: needed to convert between tokens and samples.
    """

    unit: Unit = "updates"
    per_update: int = 1
    samples_per_epoch: int | None = None
    tokens_per_sample: int | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise CountError(
                f"[count] unit: {self.unit!r} is not one of {', '.join(UNITS)}{nearest(str(self.unit), UNITS)}"
            )
        for name in ("per_update", "samples_per_epoch", "tokens_per_sample"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, increment(value, f"[count] {name}"))
        if self.unit == "epochs" and self.samples_per_epoch is None:
            raise CountError("[count] unit = 'epochs' needs samples_per_epoch")
        if self.unit == "updates" and self.per_update != 1:
            raise CountError(f"[count] per_update: an update counts as 1 update, got {self.per_update}")

    @property
    def base(self) -> str:
        """The unit of the integers: ``updates``, ``samples`` or ``tokens``."""
        return "samples" if self.unit == "epochs" else self.unit

    def to_base(self, value: float, unit: str | None = None) -> float:
        """`value` in `unit` (default: this count's own) expressed in the base unit."""
        return self.convert(value, unit or self.unit, self.base)

    def convert(self, value: float, source: str, target: str) -> float:
        """`value` from one unit to another, by the exact ratio of the stated integers.

        Raises:
            CountError: for an unknown unit, or when no stated count links the two.
        """
        for unit in (source, target):
            if unit not in UNITS:
                raise CountError(f"{unit!r} is not a unit; units are {', '.join(UNITS)}{nearest(unit, UNITS)}")
        ratio = self._ratio(source, target, frozenset())
        if ratio is None:
            raise CountError(
                f"[count] nothing links {source} to {target}: state tokens_per_sample (samples and tokens), "
                "samples_per_epoch (epochs and samples) or a unit with per_update"
            )
        return value * ratio.numerator / ratio.denominator

    def _ratio(self, source: str, target: str, seen: frozenset[str]) -> Fraction | None:
        """How many `target` one `source` is worth, along any chain of stated counts."""
        if source == target:
            return Fraction(1)
        stated = (
            ("updates", self.base, self.per_update if self.base != "updates" else None),
            ("samples", "tokens", self.tokens_per_sample),
            ("epochs", "samples", self.samples_per_epoch),
        )
        for larger, smaller, size in stated:
            for here, there, worth in (
                (larger, smaller, size),
                (smaller, larger, size and Fraction(1, size)),
            ):
                if here == source and worth and there not in seen:
                    rest = self._ratio(there, target, seen | {source})
                    if rest is not None:
                        return worth * rest
        return None
