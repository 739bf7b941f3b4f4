"""Is what an update gave within what it may give?

E, the unit of errors and budgets, is |y − o| / ulp(s) of the storage type, and ‖y − o‖_F / (u ‖s‖_F), u half
a spacing at 1, for matrices whose bound is normwise (see `budgets`, which derives the bounds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .arithmetic import Array
from .metric import ulp

MATRIX = (-2, -1)


@dataclass(frozen=True)
class Allowed:
    """One tensor (θ or one state array), all arrays in the shape that the row sees.

    Attributes:
        value: o.
        scale: s, the magnitude that the value was computed from.
        bound: elementwise.
        flush: the same where subnormal numbers may be taken for zero; >= bound.
        normwise: (..., 1, 1), what each matrix may deviate by further in the Frobenius norm; 0-dimensional and 0
            for rows without products.
        unsure: elements whose sign or mask rounding decides; `bound` covers both outcomes.
        derived: {"plain": ..., "fma": ..., "fused": ...}, the largest bound of the core's own form in each
            arithmetic, in E, unsure elements left out.
        dtype: the type that the tensor is stored in.
        vacuous: what is not judged, as no update at all would pass; broadcasts to the tensor.
    """

    value: Array
    scale: Array
    bound: Array
    flush: Array
    normwise: Array
    unsure: Array
    derived: Mapping[str, float]
    dtype: str = "float32"
    vacuous: Array = field(default_factory=lambda: np.zeros((), bool))

    @property
    def unit(self) -> Array:
        """One E of an element."""
        return ulp(self.scale, self.dtype)

    @property
    def by_matrix(self) -> bool:
        """True if E is normwise."""
        return bool(self.normwise.any())

    def length(self) -> Array:
        """One E of a matrix, (..., 1, 1)."""
        return np.asarray(ulp(1.0, self.dtype) / 2 * frobenius(self.scale))


def frobenius(x: Array) -> Array:
    """‖x‖_F of each matrix, (..., 1, 1)."""
    return np.asarray(np.sqrt(np.sum(x * x, axis=MATRIX, keepdims=True)))


def length(x: Array) -> Array:
    """‖x‖ of each matrix, (..., 1, 1), or of an array that has none."""
    return frobenius(x) if x.ndim > 1 else np.asarray(np.sqrt(np.sum(x * x)))


@dataclass(frozen=True)
class Judgement:
    """The comparison of one tensor with its bounds. Errors and budgets are in E (see `budgets`).

    Attributes:
        compared: elements.
        worst: the largest E of what is gated: of elements, or of matrices.
        budget: what was allowed there.
        derived: the largest budget of the tensor.
        ties: unsure elements; they are held to a bound that covers both outcomes and do not count in `worst`.
        flushed: elements that are within bounds only if subnormal numbers are taken for zero; not in `worst`.
        unjudged: elements whose bound is vacuous; they are not in `compared`, and only have to be finite.
        failed: elements outside, at least one for every matrix that is.
        index: the first of them (the farthest in its matrix), None if there is none.
        error, error_budget: E there, and what was allowed.
    """

    compared: int
    worst: float = 0.0
    budget: float = 0.0
    derived: float = 0.0
    ties: int = 0
    flushed: int = 0
    failed: int = 0
    unjudged: int = 0
    index: tuple[int, ...] | None = None
    error: float = 0.0
    error_budget: float = 0.0


def judge(allowed: Allowed, y: Array) -> Judgement:
    """y, float32 in the seen shape, against its bounds. NaN or infinity where the oracle is finite is outside.

    Raises:
        ValueError: the shape is another one.
    """
    if y.shape != allowed.value.shape:
        raise ValueError(f"shapes {allowed.value.shape} and {y.shape} cannot be compared")
    if y.size == 0:
        return Judgement(0)
    with np.errstate(all="ignore"):
        apart = np.abs(np.asarray(y, dtype=np.float64) - allowed.value)
        apart = np.where(np.isfinite(allowed.value), apart, np.where(np.isfinite(y), np.inf, 0.0))
        apart = np.where(np.isnan(apart), np.inf, apart)
        return (_by_matrix if allowed.by_matrix else _by_element)(allowed, apart)


def most(allowed: Allowed) -> float:
    """The largest budget, in E, of what is judged and not unsure."""
    if not allowed.value.size:
        return 0.0
    with np.errstate(all="ignore"):
        return _largest(allowed, _budget(allowed), ~allowed.unsure)


def _largest(allowed: Allowed, budget: Array, sure: Array) -> float:
    judged = sure & ~np.broadcast_to(allowed.vacuous, sure.shape)
    return float(np.max(np.nan_to_num(budget, nan=0.0, posinf=np.inf), where=judged, initial=0.0))


def _budget(allowed: Allowed) -> Array:
    """What is allowed, in E, to each element, or to all sure elements of its matrix together."""
    if not allowed.by_matrix:
        return np.asarray(allowed.bound / allowed.unit)
    together = frobenius(np.where(allowed.unsure, 0.0, allowed.bound)) + allowed.normwise
    return np.broadcast_to(together / allowed.length(), allowed.value.shape)


def _by_element(allowed: Allowed, apart: Array) -> Judgement:
    error = apart / allowed.unit
    outside = apart > allowed.flush
    return _summary(allowed, apart, error, (apart > allowed.bound) & ~outside, outside)


def _by_matrix(allowed: Allowed, apart: Array) -> Judgement:
    """Unsure elements by themselves, the others of a matrix together."""
    sure, norm, unit = ~allowed.unsure, allowed.normwise, allowed.length()
    together, bound, flush = (frobenius(np.where(sure, x, 0.0)) for x in (apart, allowed.bound, allowed.flush))
    farthest = sure & (apart == np.where(sure, apart, -1.0).max(axis=MATRIX, keepdims=True))
    beyond = apart > allowed.flush + norm
    outside = beyond & (allowed.unsure | (together > flush + norm)) | farthest & (together > flush + norm)
    stray = (apart > allowed.bound + norm) | farthest
    flushed = stray & np.where(sure, together > bound + norm, apart > allowed.bound + norm) & ~outside
    return _summary(allowed, apart, np.broadcast_to(together / unit, apart.shape), flushed, outside)


def _summary(allowed: Allowed, apart: Array, error: Array, flushed: Array, outside: Array) -> Judgement:
    budget = _budget(allowed)
    error, budget = (np.where(np.isnan(x), 0.0, x) for x in (error, budget))  # 0/0: nothing deviates, and nothing may
    idle = np.broadcast_to(allowed.vacuous, apart.shape) & np.isfinite(apart)
    outside = outside | ~np.isfinite(apart)
    sure, outside, flushed = ~allowed.unsure & ~idle, outside & ~idle, flushed & ~idle
    gated = np.asarray((sure & ~flushed) | outside)
    found = Judgement(
        apart.size - int(idle.sum()),
        derived=_largest(allowed, budget, sure),
        ties=int((allowed.unsure & ~idle).sum()),
        flushed=int(flushed.sum()),
        failed=int(outside.sum()),
        unjudged=int(idle.sum()),
    )
    if gated.any():
        at = _at(np.where(gated, error, -1.0))
        found = replace(found, worst=float(error[at]), budget=float(budget[at]))
    if not found.failed:
        return found
    first = tuple(int(i) for i in np.argwhere(outside)[0])
    if allowed.by_matrix:
        first = (*first[:-2], *_at(np.where(outside, apart, -1.0)[first[:-2]]))
    return replace(found, index=first, error=float(error[first]), error_budget=float(budget[first]))


def _at(x: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(x)), x.shape))
