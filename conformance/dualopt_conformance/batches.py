"""Updates of a group over `Bounded` arrays, as the row sees its parameters, in as few array operations as possible.

Several updates of several parameters are carried out at once. Elementwise rows treat every element alike, so theirs
are joined to one long vector; other rows get stacks of one shape. A scalar that is not the same for all of them
becomes an array that meets every member with its own number. Members of which one has 0 or 1 in the place of another
number are kept apart: that may say what is to be done at all. Motions that pool sum over the parameters of one
update, each of which brings its share, so that theirs stay alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dualopt.executor import executor
from dualopt.planned import PlannedGroup
from dualopt.recursion import Row, Shape
from dualopt.views import View

from .arithmetic import Array
from .bounded import Bounded
from .bounds import Bounds
from .walk import Moment

Key = tuple[int, str]  # a parameter in one of the moments
Made = dict[Key, dict[str, Bounded]]  # by member (the first of those joined), by state key or "" for θ


@dataclass(frozen=True)
class Batch:
    """The arrays of some updates; `members` are those in each, with the shapes in which the row sees them."""

    planned: PlannedGroup
    theta: Mapping[Key, Array]
    state: Mapping[Key, Mapping[str, Array]]
    gradient: Mapping[Key, Array]
    scalars: Mapping[Key, Mapping[str, float | Array]]
    members: Mapping[Key, tuple[tuple[Key, Shape], ...]]

    def run(self, xp: Bounds, row: Row) -> Made:
        """The updates by `row` in `xp`."""
        execute: Any = executor(xp)
        moved = execute(
            replace(self.planned, row=row),
            {key: xp.array(x) for key, x in self.theta.items()},
            {key: {name: xp.array(x) for name, x in s.items()} for key, s in self.state.items()},
            {key: {"gradient": xp.array(x)} for key, x in self.gradient.items()},
            self.scalars,
        )
        return {key: {**s, "": theta} for key, (theta, s) in moved.items()}

    def parted(self, first: Key, x: Array, leading: int = 0) -> list[Array]:
        """The members of a joined array, which may have `leading` further dimensions in front."""
        shapes = [shape for _, shape in self.members[first]]
        if not self.planned.row.local:
            return list(np.moveaxis(x, leading, 0))
        front, ends = x.shape[:leading], np.cumsum([0, *(math.prod(shape) for shape in shapes)])
        spans = zip(ends[:-1], ends[1:], shapes, strict=True)
        return [x[..., start:end].reshape((*front, *shape)) for start, end, shape in spans]


def batches(moments: Sequence[Moment]) -> Iterator[Batch]:
    """The parameters with gradients in all moments of one case."""
    if moments[0].planned.row.motion.pools:
        for i, moment in enumerate(moments):
            yield _joined({i: moment})
    else:
        yield _joined(dict(enumerate(moments)))


def _joined(moments: Mapping[int, Moment]) -> Batch:
    planned = next(iter(moments.values())).planned
    pools, local = planned.row.motion.pools, planned.row.local
    together: dict[object, list[Key]] = {}
    for i, moment in moments.items():
        for name in moment.gradient:
            scalars = moment.proposal.scalars[name].values()
            alike = tuple(c if c in (0.0, 1.0) else None for c in scalars)
            seen = () if local else planned.views[name].seen
            alone = name if pools or not planned.views[name].size else ""
            together.setdefault((seen, alike, alone), []).append((i, name))
    members = {keys[0]: tuple((key, planned.views[key[1]].seen) for key in keys) for keys in together.values()}

    def joined(first: Key, array: Any, key: str = "") -> Array:
        seen = [planned.seen(np, n, {key: np.asarray(array(moments[i], n))})[key] for (i, n), _ in members[first]]
        return np.concatenate([x.ravel() for x in seen]) if local else np.stack(seen)

    theta = {first: joined(first, lambda m, n: m.theta[n]) for first in members}
    return Batch(
        replace(planned, views={first: _whole(x.shape) for first, x in theta.items()}),  # type: ignore[misc]
        theta,
        {
            (i, n): {key: joined((i, n), lambda m, n, key=key: m.state[n][key], key) for key in moments[i].state[n]}
            for i, n in members
        },
        {first: joined(first, lambda m, n: m.gradient[n]) for first in members},
        {
            first: _alike([moments[i].proposal.scalars[n] for (i, n), _ in each], [shape for _, shape in each], local)
            for first, each in members.items()
        },
        members,
    )


def _alike(each: list[Mapping[str, float]], shapes: list[Shape], local: bool) -> dict[str, float | Array]:
    """The scalars of all members: numbers where all have the same one."""
    found: dict[str, float | Array] = {}
    for name, x in each[0].items():
        values = [k[name] for k in each]
        if values.count(x) == len(values):
            found[name] = x
        elif local:
            found[name] = np.repeat(values, [math.prod(shape) for shape in shapes])
        else:
            found[name] = np.reshape(values, (-1, *(1,) * len(shapes[0])))
    return found


def _whole(shape: Shape) -> View:
    plain = tuple(range(len(shape)))
    return View(shape, plain, shape, shape, plain)
