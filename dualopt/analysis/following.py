"""The parameters of a plan on their way: which of them go alike, from where, and how far the run goes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..explain import Line
from ..motion.settled import Settled
from ..plan import Plan
from ..planned import PlannedGroup
from ..recursion import Shape
from .course import Course, course
from .motions import Life, Path, life_of, path_of

UNSCHEDULED = 10_000  # updates of a run that nothing says the length of


def run_end(plan: Plan) -> tuple[int, bool]:
    """(where the run ends, whether that is a guess)."""
    recipe, usual = plan.recipe, plan.recipe.count.per_update
    unit = recipe.count.to_base(1.0)
    ends = [s.total * unit for s in (recipe.schedule, recipe.shrink_schedule) if s is not None and s.total]
    if ends:
        return max(1, round(max(ends))), False
    lives = [g.shrink_half_life for g in plan.groups if math.isfinite(g.shrink_half_life)]
    return round(5 * max(lives)) if lives else UNSCHEDULED * usual, True


def assumed_start(shape: Shape) -> float:
    """The RMS of entries uniform in ±1/√inputs, 1 for vectors."""
    return 1.0 if len(shape) < 2 else 1 / math.sqrt(3 * max(1, math.prod(shape[1:])))


@dataclass(frozen=True)
class Followed:
    """Parameters of one shape on their way: their RMS at the start, `assumed` or given."""

    row: Line
    start: float
    assumed: bool
    run: Course
    life: Life
    path: Path


def followed(
    planned: PlannedGroup,
    plan: Plan,
    i: int,
    updates: int,
    rows: Iterable[Line],
    starts: Mapping[str, float],
    slope: float | None = None,
) -> Iterator[Followed]:
    """The parameters `rows` of group i of `plan` over a run of so many updates."""
    shared: Course | None = None
    lives: dict[Shape, tuple[Course, Life]] = {}
    paths: dict[tuple[Shape, float], tuple[Course, Life, Path]] = {}
    for row in rows:
        shape = planned.views[row.names[0]].logical
        if shared is None or isinstance(planned.row.motion, Settled):  # only there η depends on the shape
            shared = course(plan, i, shape, updates)
        if shape not in lives:
            lives[shape] = shared, life_of(planned, shared, shape)
        run, life = lives[shape]
        known = [starts[name] for name in row.names if name in starts]
        start = math.sqrt(sum(x * x for x in known) / len(known)) if known else assumed_start(row.shape)
        if (shape, start) not in paths:
            paths[shape, start] = run, life, path_of(planned, life, run, shape, start, slope)
        yield Followed(row, start, not known, *paths[shape, start])
