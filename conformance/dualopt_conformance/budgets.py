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

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dualopt.planned import PlannedGroup

from .arithmetic import FLUSHING, FMA, FUSED, NATIVE, PLAIN, Array
from .batches import Named, Scalars, batched, parted
from .bounded import Bounded
from .bounds import Bounds
from .followed import bounding
from .forms import FORMS
from .judgement import Allowed, Judgement, frobenius, judge, length

__all__ = ["Allowed", "Judgement", "allowed", "judge"]

SLACK, OWN = 1 + 1e-6, 2.0**-50
VISIBLE = 16  # spacings of the magnitude: what moves θ by less is mostly rounding, and may be bounded by more
_SHOWN = (PLAIN, FMA, FUSED)  # of the core's own form, for reports
_ALL, _GATE = Bounds((NATIVE, FLUSHING, *_SHOWN)), Bounds((NATIVE, FLUSHING))


def allowed(
    planned: PlannedGroup,
    theta: Named,
    state: Mapping[str, Named],
    gradient: Named,
    scalars: Scalars,
    *,
    dtype: str = "float32",
) -> dict[str, dict[str, Allowed]]:
    """What one update of the parameters in `gradient` may give, by parameter and then by state key ("" for θ).

    Args:
        planned: the group.
        theta, gradient: {name: array in the stored shape}, whose values are numbers of `dtype`.
        state: {name: {key: float32 array}}.
        scalars: {name: {scalar: float64}} as `Plan.propose` gives them.
        dtype: "float32", "bfloat16" or "float16", what θ is stored in.

    Raises:
        ValueError: the row has an exact polar factor, for which no bound is derived.
    """
    batch = batched(planned, theta, state, gradient, scalars)
    found: dict[str, dict[str, Allowed]] = {name: {} for name in gradient}
    with np.errstate(all="ignore"):
        forms = [(_GATE if i else _ALL, form(planned.row)) for i, form in enumerate(FORMS.values())]
        made = [batch.run(xp, bounding(row)) for xp, row in forms]
        for first, members in batch.members.items():
            names, shapes = zip(*members, strict=True)
            for key in made[0][first]:
                width = "float32" if key else dtype
                before = batch.state[first][key] if key else batch.theta[first]
                given = [(xp, one[first][key]) for (xp, _), one in zip(forms, made, strict=True)]
                parts = of_forms([xp.stored(one) for xp, one in given], before, shapes, "float32")
                if width != "float32":  # whether a bound is vacuous is a question to the update, not to its storage
                    narrow = of_forms([xp.stored(one, width) for xp, one in given], before, shapes, width)
                    parts = [replace(n, vacuous=p.vacuous) for n, p in zip(narrow, parts, strict=True)]
                found |= {name: {**found[name], key: part} for name, part in zip(names, parts, strict=True)}
    return found


def of_forms(forms: list[Bounded], before: Array, shapes: tuple[Any, ...], dtype: str) -> list[Allowed]:
    """The bounds of one tensor from those of its forms, for each parameter that was joined in it."""
    oracle = forms[0]
    both = [_largest([np.abs(f.x - oracle.x) + f.e[i] for f in forms]) * SLACK + OWN * oracle.s for i in (0, 1)]
    bound, flush = (np.where(np.isnan(b), np.inf, b) for b in both)
    normwise = np.zeros(())
    if oracle.norm is not None:
        norms = [_largest([f.norm[i] for f in forms if f.norm is not None]) * SLACK for i in (0, 1)]
        normwise, flush = norms[0], flush + np.maximum(norms[1] - norms[0], 0)
    unsure = np.zeros(oracle.x.shape, bool)
    for f in forms:
        if f.unsure is not None:
            unsure = unsure | f.unsure[0]
    arrays = [parted(x, shapes) for x in (oracle.x, oracle.s, bound, np.maximum(flush, bound), oracle.x - before)]
    found = []
    for value, scale, b, f, change, doubt, e in zip(
        *arrays, parted(unsure, shapes), parted(oracle.e[2:], shapes, leading=1), strict=True
    ):
        norm = None if oracle.norm is None else oracle.norm[2:]
        one = Allowed(value, scale, b, f, normwise, doubt, {}, dtype)
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
