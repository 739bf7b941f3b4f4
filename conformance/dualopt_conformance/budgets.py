"""What one update may give: for every tensor an oracle, and a bound on how far a legitimate evaluation lies from it.

The oracle o is the row as the core has it, in float64 with coefficients rounded to float32. For every form F of the
row (`forms`), an evaluation in arithmetic no worse than NATIVE lies within e_F of o_F (`bounds`), so

    |y − o| <= max_F (|o_F − o| + e_F),        times 1 + 1e-6, and 2^-50 s for the float64 of the oracle itself

Parameters stored in half precision are rounded once more. Directions of rows with products have bounds in
the Frobenius norm (`polar_bounds`, `factorised`): there, matrix by matrix, ‖y − o‖_F <= ‖bound‖_F + normwise.

A bound that is as large as the update itself is *vacuous*: no update at all would pass. Such a matrix is not judged,
and counted, unless the update is so small beside what it is computed from that rounding hides it (`VISIBLE`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from .arithmetic import FLUSHING, FMA, FUSED, NATIVE, PLAIN, Array
from .batches import batches
from .bounded import Bounded
from .bounds import Bounds
from .followed import bounding
from .forms import FORMS
from .judgement import Allowed, Judgement, frobenius, judge, length
from .walk import Moment

__all__ = ["Allowed", "Judgement", "allowed", "judge"]

SLACK, OWN = 1 + 1e-6, 2.0**-50
VISIBLE = 16  # spacings of the magnitude: what moves θ by less is mostly rounding, and may be bounded by more
_SHOWN = (PLAIN, FMA, FUSED)  # of the core's own form, for reports
_ALL, _GATE = Bounds((NATIVE, FLUSHING, *_SHOWN)), Bounds((NATIVE, FLUSHING))


def allowed(moments: Sequence[Moment], dtype: str = "float32") -> list[dict[str, dict[str, Allowed]]]:
    """What the updates of a case may give: for each, by parameter with a gradient and then by state key ("" for θ).

    Args:
        moments: where they start.
        dtype: "float32", "bfloat16" or "float16", what θ is stored in.
    """
    found: list[dict[str, dict[str, Allowed]]] = [{name: {} for name in moment.gradient} for moment in moments]
    with np.errstate(all="ignore"):
        for batch in batches(moments) if moments else ():
            forms = [(_GATE if i else _ALL, form(batch.planned.row)) for i, form in enumerate(FORMS.values())]
            made = [batch.run(xp, bounding(row)) for xp, row in forms]
            for first, members in batch.members.items():
                for key in made[0][first]:
                    before = batch.state[first][key] if key else batch.theta[first]
                    given = [(xp, one[first][key]) for (xp, _), one in zip(forms, made, strict=True)]
                    parted = partial(batch.parted, first)
                    parts = of_forms([xp.stored(one) for xp, one in given], before, parted)
                    if not key and dtype != "float32":
                        # whether a bound is vacuous is a question to the update, not to its storage
                        narrow = of_forms([xp.stored(one, dtype) for xp, one in given], before, parted, dtype)
                        parts = [replace(n, vacuous=p.vacuous) for n, p in zip(narrow, parts, strict=True)]
                    for ((i, name), _), part in zip(members, parts, strict=True):
                        found[i][name][key] = part
    return found


def of_forms(
    forms: list[Bounded], before: Array, parted: Callable[..., list[Array]], dtype: str = "float32"
) -> list[Allowed]:
    """The bounds of one tensor from those of its forms, for each parameter that was joined in it.

    `parted`: (array, number of leading dimensions) -> what of it belongs to each parameter.
    """
    oracle = forms[0]
    both = [_largest([np.abs(f.x - oracle.x) + f.e[i] for f in forms]) * SLACK + OWN * oracle.s for i in (0, 1)]
    bound, flush = (np.where(np.isnan(b), np.inf, b) for b in both)
    unsure = np.zeros(oracle.x.shape, bool)
    for f in forms:
        if f.unsure is not None:
            unsure = unsure | f.unsure[0]
    count = len(parted(oracle.x))
    normwise: list[Array] = [np.zeros(())] * count
    norms: list[Array | None] = [None] * count
    if oracle.norm is not None:
        larger = [_largest([f.norm[i] for f in forms if f.norm is not None]) * SLACK for i in (0, 1)]
        flush = flush + np.maximum(larger[1] - larger[0], 0)
        normwise, norms = parted(larger[0]), list(parted(oracle.norm[2:], 1))
    arrays = [parted(x) for x in (oracle.x, oracle.s, bound, np.maximum(flush, bound), unsure, oracle.x - before)]
    found = []
    for value, scale, b, f, doubt, change, within, e, norm in zip(
        *arrays, normwise, parted(oracle.e[2:], 1), norms, strict=True
    ):
        one = Allowed(value, scale, b, f, within, doubt, {}, dtype)
        found.append(replace(one, derived=_derived(one, e, norm), vacuous=_vacuous(one, change)))
    return found


def _largest(each: list[Array]) -> Array:
    return np.asarray(np.maximum.reduce(each))


def _vacuous(one: Allowed, change: Array) -> Array:
    """The matrices, or the whole tensor if it has none, that would pass without having moved, though they should."""
    endless = ~np.isfinite(one.bound + one.normwise)
    out = one.unsure | endless
    moved, bound, unit = (length(np.where(out, 0.0, x)) for x in (change, one.bound, one.unit))
    return np.asarray(endless | (moved > VISIBLE * unit) & (bound + one.normwise >= moved))


def _derived(one: Allowed, e: Array, norm: Array | None) -> dict[str, float]:
    """The largest of bounds e (arithmetics, ...) in E, for each of the arithmetics that are shown."""
    e = np.where(one.unsure, 0.0, e)
    e[1] = np.minimum(e[0], e[1])  # the bound of PLAIN holds for FMA, too
    by_matrix = one.by_matrix and norm is not None
    if by_matrix:
        sure = ~one.unsure.any(axis=(-2, -1), keepdims=True)
        relative = sure * (frobenius(e) + norm) / one.length()
    else:
        relative = e / one.unit
    return {a.name: float(np.max(x, initial=0.0)) for a, x in zip(_SHOWN, np.nan_to_num(relative), strict=True)}
