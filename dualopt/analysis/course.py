"""The scalars of every update of a run, as the recipe has them: what a plan would hand to the arrays.

They are those of `Row.scalars`, so every kind of shrink, schedule and derived step is what training does. Runs of more
than `EXACT` updates have them at some hundreds of counts, dense at the start and at the corners of the schedule,
and straight lines in between: exact where the schedule is straight, within 1e-5 of the peak elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..clock import Clock
from ..errors import RecipeError
from ..motion.averaged import TOTAL
from ..plan import Plan
from ..recursion import Shape
from .recurrence import Floats

EXACT = 512
MOST_UPDATES = 2**20


@dataclass(frozen=True)
class Course:
    """A run of one group.

    Attributes:
        dtau: Δτ of every update.
        tau: the count after each, (t,).
        k: scalar -> its values, (t,).
        q: η relative to the peak, (t,).
        q_shrink: of the exponent of the shrink, (t,).
        weights: of every update in the mean of the fast point, where the motion averages, (t,).
    """

    dtau: int
    tau: Floats
    k: Mapping[str, Floats]
    q: Floats
    q_shrink: Floats
    weights: Floats | None


def updates_until(plan: Plan, end: int) -> int:
    """How many updates of the usual size a run until `end` has.

    Raises:
        RecipeError: more than can be followed one by one.
    """
    usual = plan.recipe.count.per_update
    n = max(1, round(end / usual))
    if n > MOST_UPDATES:
        raise RecipeError(
            f"a count of {end:,} is {n:,} updates of per_update = {usual:,}, more than {MOST_UPDATES:,}; state the "
            "per_update of the run in [count]"
        )
    return n


def course(plan: Plan, i: int, shape: Shape, updates: int) -> Course:
    """The run of group i of `plan`, for a parameter of this logical shape."""
    planned, dtau = plan.groups[i], plan.recipe.count.per_update
    action, row = planned.action, planned.row
    at = _knots(plan, updates)
    rows: list[dict[str, float]] = []
    beside: list[tuple[float, float, float]] = []
    carried: Mapping[str, float] = {}
    for update in at.tolist():
        q, q_shrink = plan.scheduled_at(update * dtau, dtau, planned.shrink_half_life)
        clock = Clock(update * dtau, dtau, q, q_shrink, carried)
        sums = row.tally(action, clock)  # Σ of this weight alone: the others are added up by whoever needs them
        rows.append(row.scalars(action, replace(clock, sums=sums), shape))
        beside.append((q, q_shrink, sums.get(TOTAL, 0.0)))
        carried = {name: value for name, value in sums.items() if name != TOTAL}
    every = np.arange(1.0, updates + 1)
    k = {name: np.interp(every, at, [one[name] for one in rows]) for name in rows[0]}
    q_all, q_shrink_all, weights = (np.interp(every, at, values) for values in zip(*beside, strict=True))
    return Course(dtau, every * dtau, k, q_all, q_shrink_all, weights if row.motion.averages else None)


def _knots(plan: Plan, updates: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The updates whose scalars are derived, from 1 to `updates`."""
    if updates <= EXACT:
        return np.arange(1, updates + 1)
    schedules = [plan.recipe.schedule, plan.recipe.shrink_schedule]
    corners: list[float] = []
    for stated in schedules:
        if stated is not None:
            s = stated.scaled(plan.recipe.count.to_base(1.0))
            ends = (s.warmup, s.total or 0.0, (s.total or 0.0) - (s.decay or 0.0))
            corners += [math.floor(end / plan.recipe.count.per_update) + near for end in ends for near in (-1, 0, 1, 2)]
    dense = np.geomspace(1, updates, EXACT // 2), np.linspace(1, updates, EXACT // 2)
    every = np.concatenate([np.arange(1, 65), np.round(np.concatenate(dense)), corners]).astype(np.int64)
    return np.unique(np.clip(every, 1, updates))
