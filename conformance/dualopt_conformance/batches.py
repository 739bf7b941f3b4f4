"""One update of a group over `Bounded` arrays, as the row sees its parameters, in as few array operations as possible.

Elementwise rows treat every element alike, so their parameters are joined to one long vector for each set of scalars.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dualopt.executor import executor
from dualopt.planned import PlannedGroup
from dualopt.recursion import Row, Shape
from dualopt.views import View

from .arithmetic import Array
from .bounded import Bounded
from .bounds import Bounds

Named = Mapping[str, Array]
Scalars = Mapping[str, Mapping[str, float]]
Made = dict[str, dict[str, Bounded]]  # by parameter (the first of those joined), by state key or "" for θ


@dataclass(frozen=True)
class Batch:
    """The arrays of an update; `members` are the parameters in each with the shapes in which the row sees them."""

    planned: PlannedGroup
    theta: Named
    state: Mapping[str, Named]
    gradient: Named
    scalars: Scalars
    members: Mapping[str, tuple[tuple[str, Shape], ...]]

    def run(self, xp: Bounds, row: Row) -> Made:
        """The update by `row` in `xp`."""
        moved = executor(xp)(
            replace(self.planned, row=row),
            {name: xp.array(x) for name, x in self.theta.items()},
            {name: {key: xp.array(x) for key, x in s.items()} for name, s in self.state.items()},
            {name: {"gradient": xp.array(x)} for name, x in self.gradient.items()},
            self.scalars,
        )
        return {name: {**s, "": theta} for name, (theta, s) in moved.items()}


def batched(
    planned: PlannedGroup, theta: Named, state: Mapping[str, Named], gradient: Named, scalars: Scalars
) -> Batch:
    """The parameters in `gradient`. Arguments as of `budgets.allowed`."""
    together: dict[object, list[str]] = {}
    for name in gradient:
        joins = planned.row.local and planned.views[name].size > 0
        together.setdefault(tuple(scalars[name].values()) if joins else name, []).append(name)
    members = {names[0]: tuple((name, planned.views[name].seen) for name in names) for names in together.values()}

    def joined(named: Named, first: str, key: str = "") -> Array:
        seen = [planned.seen(np, name, {key: np.asarray(named[name])})[key] for name, _ in members[first]]
        return np.asarray(np.concatenate([x.ravel() for x in seen]) if len(seen) > 1 else seen[0])

    joint = {first: joined(theta, first) for first in members}
    return Batch(
        replace(planned, views={first: _whole(x.shape) for first, x in joint.items()}),
        joint,
        {
            first: {key: joined({n: s[key] for n, s in state.items()}, first, key) for key in state[first]}
            for first in members
        },
        {first: joined(gradient, first) for first in members},
        {first: scalars[first] for first in members},
        members,
    )


def parted(x: Array, shapes: tuple[Shape, ...], leading: int = 0) -> list[Array]:
    """The parameters of `shapes` in a joined array, which may have `leading` further dimensions in front."""
    if len(shapes) == 1:
        return [x]
    front, ends = x.shape[:leading], np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    spans = zip(ends[:-1], ends[1:], shapes, strict=True)
    return [x[..., start:end].reshape((*front, *shape)) for start, end, shape in spans]


def _whole(shape: Shape) -> View:
    plain = tuple(range(len(shape)))
    return View(shape, plain, shape, shape, plain)
