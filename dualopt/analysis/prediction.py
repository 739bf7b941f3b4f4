"""What a recipe will do to a model: its time constants, sizes, angles and memories, group by group, without training.

Gradients are taken to be noise. Where they agree, weights are larger, at most as large as their ball, and turn more
slowly; where rows are relatives of polar factors sizes are upper estimates (`steady`). What depends on the size or the
spectrum of gradients is None.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .. import cautions
from ..counts import increment, life_of_loss
from ..explain import Line, lines, schedules
from ..motion.additive import Additive
from ..motion.held import Held
from ..motion.targeted import Targeted
from ..plan import Plan
from ..planned import PlannedGroup
from ..recipe import Recipe
from ..recursion import Shape
from . import stability, weights
from .course import Course, updates_until
from .doubts import doubts_about
from .following import followed, run_end
from .motions import Life, Path, evaluated, remembered
from .recurrence import Floats
from .sizes import linear_in_gradient

EARLY = 0.25  # the part of a run that counts as early
CURVE = 301  # points of a curve


@dataclass(frozen=True)
class Seen:
    """Parameters of one shape in a group, and their RMS. None: not known.

    Attributes:
        start, end: of θ, `start` given or assumed, `end` of what is evaluated then.
        assumed: True if `start` is a guess from the shape.
        settles: that of the steady state at the peak of the step.
        most: that which no gradients can exceed at the end.
        update: that of η u at the peak.
        angle: radians per update, the median over the run; `turns` in the steady state at the peak.
        cosine: between the initial and the final weights.
    """

    pattern: str
    names: tuple[str, ...]
    shape: Shape
    start: float
    assumed: bool
    end: float | None
    settles: float | None
    most: float | None
    update: float | None
    angle: float | None
    turns: float | None
    cosine: float | None


@dataclass(frozen=True)
class Curves:
    """The run at `count` (points): of the largest parameter of a group, and the schedules."""

    count: Floats
    rms: Floats | None
    angle: Floats | None
    weight: Floats  # of gradients, relative to equal weights
    step: Floats
    lost: Floats


@dataclass(frozen=True)
class Outlook:
    """A group. Half-lives and periods are in counts.

    Attributes:
        readout, memory_half_life, amplification: μ, h_m (0: none), and A at the peak, of the largest parameter.
        shrink_half_life: h_a at the peak of the step, of the walk that the motion amounts to; inf: nothing shrinks.
        period: the count after which a tenth of an update is left.
        left: the share of the initial weights at the end.
        early: the share of the first quarter of the run in the final weights.
        reach: how far back from the end half of the final weights reaches.
        threshold: the largest curvature that the peak step stands; of P⁻¹H if `preconditioned`. None: no such thing.
        linked: penalties count as curvature: the one of this group.
    """

    name: str
    optimizer: str
    motion: str
    parameters: int
    entries: int
    matrices: bool
    readout: float
    memory_half_life: float
    amplification: float
    shrink_half_life: float
    period: float
    left: float
    early: float
    reach: float
    threshold: float | None
    preconditioned: bool
    penalty: float
    seen: tuple[Seen, ...]
    curves: Curves


@dataclass(frozen=True)
class Prediction:
    """A run until `end`, in `updates` updates of `per_update`; `assumed`: nothing said how long it is."""

    base: str
    per_update: int
    updates: int
    end: int
    assumed: bool
    schedule: str
    groups: tuple[Outlook, ...]
    warnings: tuple[str, ...]


def predict(
    recipe: Recipe,
    shapes: Mapping[str, Shape],
    *,
    starts: Mapping[str, float] | None = None,
    dtypes: Mapping[str, str] | None = None,
    count: int | None = None,
    curvature: float | None = None,
    slope: float | None = None,
) -> Prediction:
    """What `recipe` does to parameters of these shapes.

    Args:
        starts: their RMS at the beginning; what is not there is taken to be that of entries uniform in ±1/√inputs, and
            1 for vectors.
        dtypes: how they are stored, where that is not float32: "bfloat16" or "float16".
        count: where the run ends, in the base unit. By default where the schedule ends, or after five half-lives of
            the longest shrink.
        curvature: the largest of the Hessian, if it is known, to compare thresholds with.
        slope: E(g‖ω‖)² per entry of rows ω, if it is known: what SGDM and Adam with a penalty settle by.

    Raises:
        RecipeError: the recipe does not fit the parameters, or has too many updates.
        CountError: `count` is not a positive integer.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = Plan(recipe, shapes)
        if dtypes:
            cautions.too_fine(plan.recipe.count, plan.groups, dict.fromkeys(shapes, "float32") | dict(dtypes))
    told = tuple(dict.fromkeys(str(one.message) for one in caught))
    found = predicted(plan, starts=starts, count=count, curvature=curvature, slope=slope)
    return replace(found, warnings=told + found.warnings)


def predicted(
    plan: Plan,
    *,
    starts: Mapping[str, float] | None = None,
    count: int | None = None,
    curvature: float | None = None,
    slope: float | None = None,
) -> Prediction:
    """The same for a recipe that is bound to its parameters; `plan` is left as it is."""
    recipe = plan.recipe
    end, assumed = (increment(count), False) if count is not None else run_end(plan)
    updates = updates_until(plan, end)
    rows = list(lines(plan, plan.shapes, {}))
    groups = tuple(
        _outlook(
            planned, plan, i, updates, [row for row in rows if row.group == planned.group.name], starts or {}, slope
        )
        for i, planned in enumerate(plan.groups)
    )
    base, usual = recipe.count.base, recipe.count.per_update
    told = tuple(doubts_about(groups, base, updates * usual, curvature))
    return Prediction(base, usual, updates, updates * usual, assumed, schedules(recipe), groups, told)


def _outlook(
    planned: PlannedGroup,
    plan: Plan,
    i: int,
    updates: int,
    rows: list[Line],
    starts: Mapping[str, float],
    slope: float | None,
) -> Outlook:
    found = [
        (len(one.row.names) * math.prod(one.row.shape), _seen(one.row, one.path, one.start, one.assumed, one.life), one)
        for one in followed(planned, plan, i, updates, rows, starts, slope)
    ]
    largest = max(found, key=lambda one: one[0])[-1]
    run, life, path = largest.run, largest.life, largest.path
    added, left = remembered(life, path)
    share = added / (float(np.sum(added)) or 1.0)
    peak = int(np.argmax(life.eta if life.angle is None else life.angle))
    lost = float(path.lost[peak])
    shrinks = life_of_loss(min(1.0, lost), run.dtau)
    threshold = _threshold(planned, life, path, peak)
    quarter = max(1, round(EARLY * updates))
    return Outlook(
        name=planned.group.name,
        optimizer=planned.group.optimizer,
        motion=str(planned.action["motion"]),
        parameters=sum(len(row.names) for row in rows),
        entries=sum(entries for entries, *_ in found),
        matrices=any(len(row.shape) > 1 for row in rows),
        readout=life.mu,
        memory_half_life=float(planned.action["memory_half_life"]) if life.noise.remembers else 0.0,
        amplification=life.total(lost),
        shrink_half_life=shrinks,
        period=weights.period(0.1, shrinks),
        left=left,
        early=float(np.sum(share[:quarter])),
        reach=weights.reach(share, np.full(updates, float(run.dtau))),
        threshold=threshold,
        preconditioned=threshold is not None and "c_v" in planned.row.needs,
        penalty=float(planned.action.get("l2", 0.0)),
        seen=tuple(seen for _, seen, *_ in found),
        curves=_curves(planned, run, life, path, share),
    )


def _seen(row: Line, path: Path, start: float, assumed: bool, life: Life) -> Seen:
    end, cosine = evaluated(life, path, start)
    return Seen(
        pattern=row.pattern,
        names=row.names,
        shape=row.shape,
        start=start,
        assumed=assumed,
        end=end,
        settles=path.settles,
        most=path.most,
        update=None if path.update is None else float(np.max(path.update)),
        angle=None if path.angle is None else float(np.median(path.angle)),
        turns=path.turns,
        cosine=cosine,
    )


def _threshold(planned: PlannedGroup, life: Life, path: Path, peak: int) -> float | None:
    motion = planned.row.motion
    plain = isinstance(motion, Additive) and not motion.averages and not isinstance(motion, Held | Targeted)
    if not plain or not linear_in_gradient(life.noise):
        return None
    return stability.threshold(float(life.eta[peak]), life.mu, life.c, float(path.lost[peak]))


def _curves(planned: PlannedGroup, run: Course, life: Life, path: Path, share: Floats) -> Curves:
    t = run.tau.size
    at = np.unique(np.round(np.linspace(0, t - 1, min(t, CURVE))).astype(np.int64))
    step = life.eta if "eta" in run.k else life.angle if life.angle is not None else run.q * planned.step
    edges = np.append(at, t)
    density = np.add.reduceat(share, at) / np.diff(edges) * t

    def picked(values: Floats | None) -> Floats | None:
        return None if values is None else values[at]

    return Curves(run.tau[at], picked(path.rms), picked(path.angle), density, step[at], path.lost[at])
