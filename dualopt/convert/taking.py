"""A checkpoint of dualopt from those of another training: its weights, and the states of its optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import Snapshot, permuted
from ..counts import Count
from ..errors import CheckpointError
from ..plan import RUN, Plan
from ..recipe import Recipe
from ..views import Layout
from . import files, reading, states
from .files import Read
from .knobs import Knobs, Source
from .maps import to_action

CHANNELS_LAST = "mlx"  # the library that stores convolution kernels so


@dataclass(frozen=True)
class Taken:
    """The recipe that continues, from where, the number of updates of each parameter, and weights without a state."""

    read: Read
    snapshot: Snapshot
    updates: dict[str, int]
    left_out: tuple[str, ...]


def by_source(
    source: Source, knobs: Mapping[str, Any], count: Count, paths: Sequence[Path], model: Path, updates: int | None
) -> Taken:
    """One optimizer. Its knobs are those that its groups were saved with, and over these `knobs`.

    Raises:
        RecipeError, CheckpointError: as `Knobs`, `to_action`, `reading` and `states.adopt`.
    """
    weights, found = _read(paths, model)
    groups = [group for one in found for group in one.groups]
    stated = {}
    if groups:
        for i, group in enumerate(groups):
            saved = {key: value for key, value in group.knobs.items() if key in source.knobs}
            stated[f"group {i + 1}"] = Knobs(source, **{**saved, **knobs}), group.names
    else:
        stated["all"] = Knobs(source, **knobs), ("*",)
    made = tuple(to_action(one, count, continued=True, name=name, match=match) for name, (one, match) in stated.items())
    read = files.followed(Recipe(made, count), {name: one for name, (one, _) in stated.items()}, stated=False)
    return _taken(read, weights, found, updates)


def by_file(read: Read, paths: Sequence[Path], model: Path, updates: int | None) -> Taken:
    """The optimizers of a file of knobs, one for every group.

    Raises:
        RecipeError, CheckpointError: as `reading` and `states.adopt`, and for a group that is not written in knobs.
    """
    return _taken(read, *_read(paths, model), updates)


def _read(paths: Sequence[Path], model: Path) -> tuple[reading.Weights, list[reading.Saved]]:
    weights = reading.weights(model)
    return weights, [reading.saved(path, weights) for path in paths]


def _taken(read: Read, weights: reading.Weights, found: Sequence[reading.Saved], updates: int | None) -> Taken:
    kept = {name: arrays for one in found for name, arrays in one.kept.items()}
    for name in kept:
        if name not in weights.arrays:
            raise CheckpointError(f"state of {name!r}, which is not among the weights of the model")
    arrays = {name: x for name, x in weights.arrays.items() if name in kept}
    libraries = {one.source.library for one in read.knobs.values()}
    layout: Layout = "channels_last" if libraries == {CHANNELS_LAST} else "channels_first"
    plan = Plan(read.recipe, {name: x.shape for name, x in arrays.items()}, layout=layout)
    state: dict[str, dict[str, Any]] = {name: {} for name in arrays}
    counts = dict.fromkeys(arrays, 0)
    for planned in plan.groups:
        own = {name: kept[name] for name in planned.names if kept[name]}
        knobs = read.knobs.get(planned.group.name)
        if knobs is None:
            raise CheckpointError(f"group {planned.group.name!r} names no optimizer that its state could be of")
        damped = float(knobs.fields.get("dampening", 0.0))
        one = states.adopt(plan, knobs.source, own, updates=updates, dampening=damped)
        state |= one.state
        counts |= one.counts
    per_update = read.recipe.count.per_update
    here = Snapshot(
        arrays,
        state,
        {RUN: max(counts.values(), default=0), **counts},
        {name: dtype for name, dtype in weights.dtypes.items() if name in arrays},
    )
    axes = {name: plan.groups[i].views[name].portable for name, i in plan.group_of.items()}
    left_out = tuple(name for name in weights.arrays if name not in arrays)
    numbers = {name: count // per_update for name, count in counts.items() if count}
    return Taken(read, permuted(here, axes, {}), numbers, left_out)
