"""What a recipe does to a model, before it does it.

`explain` shows which parameter gets which row, with every coordinate in use and whether it was stated;
on request the derived scalars, to the bit; and, as a dry run, one update in numpy without gradients, so
that whatever is wrong with a recipe is found before the first batch.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import catalog
from .coordinates import COORDINATES, Value
from .counts import Count, increment
from .errors import RecipeError
from .executor import executor
from .frameworks import as_recipe, framework_of, shapes_of
from .microbatches import GRADIENT, Folding, folded
from .plaintext import aligned, readable
from .plan import Plan
from .planned import PlannedGroup
from .recipe import Recipe
from .recursion import Arrays, Shape
from .views import View


@dataclass(frozen=True)
class Line:
    """Parameters that differ in numbers of their names only.

    Attributes:
        pattern: their common name, with ``*`` for the numbers.
        view: how the row sees them: elements, a vector, or matrices (T: stored transposed).
        tied: second names under which the model uses them.
    """

    pattern: str
    names: tuple[str, ...]
    shape: Shape
    group: str
    optimizer: str
    view: str
    tied: tuple[str, ...] = ()


@dataclass(frozen=True)
class Use:
    """A coordinate in use. Half-lives are in the base unit of the count."""

    value: Value
    stated: bool


@dataclass(frozen=True)
class GroupUse:
    """A group with everything that it reads."""

    name: str
    optimizer: str
    source: str
    parameters: int
    entries: int
    coordinates: Mapping[str, Use]


@dataclass(frozen=True)
class Scalars:
    """The derived scalars of the update that ends at `count`, for parameters seen in `shape`."""

    group: str
    shape: Shape
    count: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Explanation:
    """What `explain` found. ``dry`` is the number of shapes that a dry run updated, or None."""

    count: Count
    schedule: str
    rows: tuple[Line, ...]
    groups: tuple[GroupUse, ...]
    scalars: tuple[Scalars, ...] = ()
    dry: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values; scalars as decimal and as ``float.hex``."""
        return {
            "count": {"unit": self.count.unit, "base": self.count.base, "per_update": self.count.per_update},
            "schedule": self.schedule,
            "parameters": [dataclasses.asdict(row) for row in self.rows],
            "groups": [
                {
                    **{f.name: getattr(g, f.name) for f in dataclasses.fields(g) if f.name != "coordinates"},
                    "coordinates": {
                        key: {"value": "inf" if use.value == math.inf else use.value, "stated": use.stated}
                        for key, use in g.coordinates.items()
                    },
                }
                for g in self.groups
            ],
            "scalars": [
                {
                    "group": s.group,
                    "shape": list(s.shape),
                    "count": s.count,
                    "values": {key: {"decimal": repr(x), "hex": x.hex()} for key, x in s.values.items()},
                }
                for s in self.scalars
            ],
            "dry": self.dry,
        }

    def table(self) -> str:
        """Plain text: the count, the parameters, the groups and what else was asked for."""
        base = self.count.base
        blocks = [f"count     {base}, {self.count.per_update:,} per update\nschedule  {self.schedule}"]
        head = ("parameter", "shape", "group", "optimizer", "seen as")
        blocks.append(aligned([head, *map(_cells, self.rows)]))
        for g in self.groups:
            of = "parameter" if g.parameters == 1 else "parameters"
            title = f"{g.name}: {g.optimizer}, {g.parameters} {of}, {g.entries:,} entries"
            rows = [(f"  {key}", *self._use(key, use)) for key, use in g.coordinates.items()]
            blocks.append("\n".join([title, aligned(rows)]))
        for s in self.scalars:
            title = f"{s.group}: scalars of the update that ends at {s.count:,} {base}, seen as {_shape(s.shape)}"
            blocks.append("\n".join([title, aligned([(f"  {k}", repr(x), x.hex()) for k, x in s.values.items()])]))
        if self.dry is not None:
            blocks.append(f"dry run: one update of {self.dry} group and shape pairs in numpy, no errors")
        return "\n\n".join(blocks)

    def _use(self, key: str, use: Use) -> tuple[str, str]:
        origin = "" if use.stated else "default"
        if COORDINATES[key].kind != "half-life":
            return (f"{use.value:.8g}" if isinstance(use.value, float) else str(use.value).lower()), origin
        if use.value == math.inf:
            return "never", origin
        life = float(use.value)
        updates = f"{readable(life / self.count.per_update)} updates"
        return (updates if self.count.base == "updates" else f"{readable(life)} {self.count.base} = {updates}"), origin


def explain(
    model: Any,
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    scalars: bool = False,
    dry: bool = False,
    count: int | None = None,
) -> Explanation:
    """Which parameter gets which row, with which coordinates.

    Args:
        model: a torch or MLX module, or a mapping of parameter names to shapes or arrays.
        recipe: a `Recipe`, its tables, or the path of its file.
        scalars: also derive the scalars of the first update.
        dry: also carry out one update on zeros, in numpy, for every shape in every group.
        count: with `scalars`, also those of the update of the usual size that ends at this count; running sums,
            where a row has some, are then those of updates of the usual size before it.

    Raises:
        RecipeError: the recipe is invalid or does not fit the model.
        CountError: `count` is not a positive integer.
    """
    checked = as_recipe(recipe)
    shapes, tied = shapes_of(model)
    layout = "channels_last" if framework_of(model) == "mlx" else "channels_first"  # of convolution kernels
    plan = Plan(checked, shapes, layout=layout)
    if count is not None and increment(count) < checked.count.per_update:
        raise RecipeError(f"count = {count} ends before the first update, at {checked.count.per_update}")
    ends = sorted({checked.count.per_update, count or checked.count.per_update})
    return Explanation(
        count=checked.count,
        schedule=schedules(checked),
        rows=tuple(lines(plan, shapes, tied)),
        groups=tuple(_group(planned) for planned in plan.groups),
        scalars=tuple(s for end in ends for s in _scalars(plan, end)) if scalars else (),
        dry=_dry(plan) if dry else None,
    )


def _cells(row: Line) -> tuple[str, ...]:
    name = row.pattern + (f" ({len(row.names)})" if len(row.names) > 1 else "")
    name += f" = {', '.join(row.tied)}" if row.tied else ""
    return name, _shape(row.shape), row.group, row.optimizer, row.view


def _shape(shape: Shape) -> str:
    return " × ".join(map(str, shape)) if shape else "scalar"


def schedules(recipe: Recipe) -> str:
    """The schedules in one line."""
    told = []
    for name, schedule in (("", recipe.schedule), ("; shrink ", recipe.shrink_schedule)):
        if schedule is not None:
            lengths = ((key, getattr(schedule, key)) for key in ("warmup", "total", "decay", "floor"))
            listed = [f"{key} {readable(value)}" for key, value in lengths if value]
            listed += ["drives step and shrink"] if schedule.drives == "both" else []
            told.append(name + ", ".join([schedule.shape, *listed]))
    return "".join(told) + (", in epochs" if recipe.count.unit == "epochs" else "")


def _group(planned: PlannedGroup) -> GroupUse:
    entry = catalog.entry(planned.group.optimizer)
    uses = {key: Use(value, key in planned.group.options) for key, value in planned.action.items()}
    if "norm" in uses and "polar" not in planned.row.resolved:
        uses.pop("polar", None)  # only spectral norms have a polar factor
    entries = sum(view.size for view in planned.views.values())
    return GroupUse(planned.group.name, entry.name, entry.source, len(planned.views), entries, uses)


def lines(plan: Plan, shapes: Mapping[str, Shape], tied: Mapping[str, str]) -> Iterable[Line]:
    """In model order, alike parameters of one group joined."""
    joined: dict[tuple[str, Shape, int], list[str]] = {}
    for name, shape in shapes.items():
        pattern = re.sub(r"(?<![^.])\d+(?![^.])", "*", name)  # whole numbers between dots
        joined.setdefault((pattern, shape, plan.group_of[name]), []).append(name)
    for (pattern, shape, i), names in joined.items():
        planned = plan.groups[i]
        yield Line(
            pattern=pattern if len(names) > 1 else names[0],
            names=tuple(names),
            shape=shape,
            group=planned.group.name,
            optimizer=planned.group.optimizer,
            view=_view(planned, planned.views[names[0]]),
            tied=tuple(second for second, first in tied.items() if first in names),
        )


def _view(planned: PlannedGroup, view: View) -> str:
    if planned.row.local and view.seen == view.stored:
        return "elements"
    if len(view.seen) < 2:
        return "vector"
    matrices = math.prod(view.seen[:-2])
    stack = f"{matrices} of " if len(view.seen) > 2 and (matrices != 1 or len(view.stored) > 2) else ""
    flipped = planned.group.orientation == "in_out"
    return f"{stack}{_shape(view.seen[-2:])}{' (T)' if flipped else ''}"


def _scalars(plan: Plan, end: int) -> list[Scalars]:
    """The scalars of the update of the usual size that ends at `end`, per group and logical shape."""
    begin = end - plan.recipe.count.per_update
    plan.set_out(begin)
    found = plan.propose(None, plan.counts).scalars
    distinct = {(i, planned.views[n].logical): n for i, planned in enumerate(plan.groups) for n in planned.names}
    return [Scalars(plan.groups[i].group.name, shape, end, dict(found[name])) for (i, shape), name in distinct.items()]


def _nothing(plan: Plan, theta: Arrays, state: Mapping[str, Arrays], k: Mapping[str, Any]) -> dict[str, Arrays]:
    """The evidence of as many microbatches of zeros as each row needs."""
    found: dict[str, Arrays] = {}
    for name, x in theta.items():
        least = plan.groups[plan.group_of[name]].row.folds[GRADIENT].least
        folding = folded([{name: x}] * least, partial(_empty, plan, state, k), lambda tree: tree)
        found |= folding.evidence() if folding else {}
    return found


def _empty(plan: Plan, state: Mapping[str, Arrays], k: Mapping[str, Any], named: Mapping[str, Any]) -> Folding:
    return Folding(plan, np, state.__getitem__, {name: k[name] for name in named})


def _dry(plan: Plan) -> int:
    """One update on zeros for one parameter of every (group, shape); how many there were."""
    plan.set_out(0)
    names = list({(plan.group_of[n], v.stored): n for g in plan.groups for n, v in g.views.items()}.values())
    proposal = plan.propose(None, names)
    execute = executor(np)
    for planned in plan.groups:
        theta = {n: np.zeros(v.stored, np.float32) for n, v in planned.views.items() if n in names}
        state = {n: planned.start(np, n, x) for n, x in theta.items()}
        evidence = _nothing(plan, theta, state, proposal.scalars)
        for name, (moved, _) in execute(planned, theta, state, evidence, proposal.scalars).items():
            if not np.isfinite(moved).all():
                raise RecipeError(f"group {planned.group.name!r}: a zero update of {name!r} is not finite")
    return len(names)
