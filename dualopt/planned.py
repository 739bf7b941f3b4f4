"""A recipe group bound to its row and its parameters: what a backend carries out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from . import catalog
from .clock import Clock
from .errors import GradientError
from .recipe import Group, Recipe
from .recursion import Array, Arrays, Namespace, Row, Shape
from .rounding import STORAGES
from .views import View, view


@dataclass(frozen=True)
class PlannedGroup:
    """A recipe group bound to its row, its parameters and its coordinates in the base unit."""

    group: Group
    row: Row
    action: Mapping[str, Any]
    views: Mapping[str, View]  # by parameter name, in model order

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.views)

    @property
    def step(self) -> float:
        """The peak of η; 0 for a row that does not use it."""
        return float(self.action.get("step", 0.0))

    @property
    def shrink_half_life(self) -> float:
        return float(self.action.get("shrink_half_life", math.inf))

    def start(self, xp: Namespace, name: str, theta: Array) -> Arrays:
        """The state of a parameter before its first update, as it is stored; θ in the working type."""
        return self.stored(xp, name, self.row.init(xp, self.views[name].apply(xp, theta)))

    def seen(self, xp: Namespace, name: str, state: Arrays) -> Arrays:
        """A stored state as the row sees it: what has the shape of θ is viewed as θ is."""
        view, apart = self.views[name], self.row.apart
        return {key: x if key in apart else view.apply(xp, x) for key, x in state.items()}

    def measured(self, xp: Namespace, name: str, evidence: Arrays) -> Arrays:
        """Evidence as the row sees it: the same for what was measured."""
        view = self.views[name]
        apart = {key for fold in self.row.folds.values() for key in fold.apart}
        return {key: x if key in apart else view.apply(xp, x) for key, x in evidence.items()}

    def stored(self, xp: Namespace, name: str, state: Arrays) -> Arrays:
        """The inverse of `seen`."""
        view, apart = self.views[name], self.row.apart
        return {key: x if key in apart else view.undo(xp, x) for key, x in state.items()}

    def evaluated(self, xp: Namespace, name: str, theta: Array, state: Arrays) -> Array:
        """The parameter to evaluate at, in the working type; θ and its state as they are stored."""
        view = self.views[name]
        found = self.row.evaluate(xp, view.apply(xp, theta), self.seen(xp, name, state), {})
        return view.undo(xp, found)

    @cached_property
    def sums(self) -> tuple[str, ...]:
        """The names of the running sums that its parameters have after their first update."""
        return tuple(self.row.tally(self.action, Clock(1, 1)))

    @cached_property
    def leads(self) -> bool:
        """True if its motion has state, which begins with what θ is."""
        return bool(self.row.motion.init(np, np.zeros((0, 0))))

    @property
    def anchored(self) -> bool:
        """True if the state before the first update depends on θ."""
        return self.leads or (self.row.storage is not None and self.row.storage.anchored)


def bind(
    group: Group,
    shapes: Mapping[str, Shape],
    recipe: Recipe,
    *,
    float64: bool = False,
    layout: str = "channels_first",
    half: bool = False,
) -> PlannedGroup:
    """A group of `recipe` bound to its parameters; `float64` makes unstated polar methods exact, `half` says that
    some of them are of half precision."""
    count = recipe.count
    action = catalog.complete(
        group.optimizer,
        group.options,
        per_update=count.per_update,
        unit=count.to_base(1.0),
        exact_polar=float64,
    )
    least = catalog.least_ndim(group.optimizer, action)
    norm = str(action["norm"]) if "norm" in action else None
    row = catalog.row(group.optimizer, action)
    row = replace(row, storage=STORAGES[group.rounding]) if half else row
    seen = partial(
        view,
        norm=norm,
        orientation=group.orientation,
        kind=group.view,
        layout=layout,
        blocks=group.blocks,
        whole=row.whole,
    )
    views = {name: seen(tuple(shape), least_ndim=least) for name, shape in shapes.items()}
    return PlannedGroup(group, row, action, views)


def check_gradient(name: str, shape: Shape, gradient_shape: Shape, kind: str) -> None:
    """Refuse a gradient that does not fit. `kind` is what the backend saw: "real", "sparse", "complex", ...

    Raises:
        GradientError: naming the parameter, what was found, and what to do.
    """
    if kind != "real":
        cure = {
            "sparse": "make it dense (e.g. Embedding(sparse=False))",
            "complex": "view parameter and gradient as real pairs",
        }
        raise GradientError(f"gradient of {name!r} is {kind}; {cure.get(kind, 'gradients are floating-point arrays')}")
    if tuple(gradient_shape) != tuple(shape):
        raise GradientError(f"gradient of {name!r} has shape {tuple(gradient_shape)}, its parameter {tuple(shape)}")
