"""A snapshot made to fit another model or recipe, on purpose: every change is named by whoever makes it.

`restore` refuses what was saved from another model or under another recipe. These functions say what is meant
instead, one thing each, and return a new snapshot for it:

    saved, _ = checkpoint.load("checkpoint.safetensors")
    saved = transplant.renamed(saved, {"blocks.0.fc.weight": "blocks.0.up.weight"})
    saved = transplant.partial(saved, opt.snapshot(), fresh=["head.*"], dropped=["old_head.*"])
    saved = transplant.restarted(saved, ["blocks.*"])
    saved = transplant.rounded(saved, recipe)
    opt.restore(transplant.under(saved, recipe))

Names are globs where several are meant; ``*`` crosses dots. One that matches nothing is an error, as it would be
a misspelt one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from . import storage
from .checkpoint import Snapshot
from .errors import CheckpointError, nearest
from .numpy_backend import CASTS
from .plan import RUN
from .recipe import Recipe
from .rounding import STORAGES

_HALF = {"BF16": "bfloat16", "F16": "float16"}


def renamed(snapshot: Snapshot, names: Mapping[str, str]) -> Snapshot:
    """Parameters under other names, with their state and counts; {name that was saved: name in the model}.

    Raises:
        CheckpointError: a name that was not saved, or two parameters under one name.
    """
    for name in names:
        if name not in snapshot.parameters:
            raise CheckpointError(f"renamed: no parameter {name!r} was saved{nearest(name, snapshot.parameters)}")
    now = {name: names.get(name, name) for name in snapshot.parameters}
    taken: dict[str, str] = {}
    for old, new in now.items():
        if not new or "/" in new:
            raise CheckpointError(f"renamed: {new!r} cannot be the name of a parameter")
        if new in taken:
            raise CheckpointError(f"renamed: {taken[new]!r} and {old!r} would both be {new!r}")
        taken[new] = old

    def moved(found: Mapping[str, Any]) -> dict[str, Any]:
        return {now.get(name, name): x for name, x in found.items()}

    return replace(
        snapshot,
        parameters=moved(snapshot.parameters),
        state=moved(snapshot.state),
        counts=moved(snapshot.counts),
        dtypes=moved(snapshot.dtypes),
        sums=moved(snapshot.sums),
    )


def partial(snapshot: Snapshot, here: Snapshot, *, fresh: Iterable[str] = (), dropped: Iterable[str] = ()) -> Snapshot:
    """What was saved for the parameters of a model, and what the model has for those that are new.

    Args:
        snapshot: what was saved.
        here: `snapshot()` of the optimizer that goes on.
        fresh: parameters that start as they are in `here`, without memory and at count 0, saved or not.
        dropped: parameters that were saved and are not in the model.

    Raises:
        CheckpointError: a parameter on one side only that is in neither list, or a glob that matches nothing.
    """
    new = _chosen(here.parameters, fresh, "fresh", "the model")
    gone = _chosen(snapshot.parameters, dropped, "dropped", "the saved parameters")
    for name in here.parameters:
        if name not in snapshot.parameters and name not in new:
            raise CheckpointError(f"partial: {name!r} was not saved; name it in fresh=, to start it as it is")
    for name in snapshot.parameters:
        if name not in here.parameters and name not in gone:
            raise CheckpointError(f"partial: {name!r} was saved and is not in the model; name it in dropped=")
    kept = [name for name in here.parameters if name not in new]

    def both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
        return {n: one[n] for n in kept if n in one} | {n: other[n] for n in other if n in new}

    ages = {RUN: snapshot.counts[RUN]} if RUN in snapshot.counts else {}
    return replace(
        snapshot,
        parameters=both(snapshot.parameters, here.parameters),
        state=both(snapshot.state, {name: {} for name in here.parameters}),
        counts=ages | both(snapshot.counts, dict.fromkeys(here.parameters, 0)),
        dtypes=both(snapshot.dtypes, here.dtypes),
        sums=both(snapshot.sums, {}),
    )


def restarted(snapshot: Snapshot, match: Iterable[str]) -> Snapshot:
    """These parameters with the weights that they have, and without memory, at count 0: for rows that have changed.

    Raises:
        CheckpointError: a glob that matches nothing.
    """
    chosen = _chosen(snapshot.parameters, match, "restarted", "the saved parameters")
    return replace(
        snapshot,
        state={name: {} if name in chosen else s for name, s in snapshot.state.items()},
        counts={name: 0 if name in chosen else count for name, count in snapshot.counts.items()},
        sums={name: sums for name, sums in snapshot.sums.items() if name not in chosen},
    )


def rounded(snapshot: Snapshot, recipe: Recipe) -> Snapshot:
    """Half-precision parameters as the `rounding` of their groups in `recipe` keeps them, whatever kept them so far.

    What goes on is the weight with all the bits that were kept beside it. To none but a master all of them are given;
    where nothing is kept beside a parameter, it is rounded to nearest.

    Raises:
        RecipeError: as `Recipe.assign`.
    """
    shapes = {name: x.shape for name, x in snapshot.parameters.items()}
    recipe = recipe.fitted(shapes)
    group_of = recipe.assign(shapes)
    casts = CASTS["exact"]
    parameters, state = dict(snapshot.parameters), dict(snapshot.state)
    halved = {group_of[name] for name in snapshot.dtypes}  # all parameters of such a group are kept alike: see `Plan`
    for name, weights in snapshot.parameters.items():
        kept = state.get(name, {})
        if not snapshot.counts.get(name):  # it begins with what it is
            state[name] = {}
            continue
        x = weights
        like = storage.store(x, _HALF[snapshot.dtypes[name]]) if name in snapshot.dtypes else x
        for one in filter(None, STORAGES.values()):
            if one.keys and kept.keys() >= set(one.keys):
                x = one.opened(casts.widen, like, kept)
                kept = {key: s for key, s in kept.items() if key not in one.keys}
        new = STORAGES[recipe.groups[group_of[name]].rounding] if group_of[name] in halved else None
        beside: Mapping[str, Any] = {}
        if new is None or new.random:
            like = casts.narrow(x, like)
        else:
            like, beside = new.closed(casts, x, like, None)
        parameters[name] = casts.widen(like)
        state[name] = {**kept, **{key: casts.widen(s) for key, s in beside.items()}}
    return replace(snapshot, parameters=parameters, state=state)


def under(snapshot: Snapshot, recipe: Recipe) -> Snapshot:
    """The snapshot as if `recipe` had made it. What does not fit its rows is still refused by `restore`."""
    return replace(snapshot, origin=replace(snapshot.origin, recipe=recipe.to_toml()))


def _chosen(names: Iterable[str], globs: Iterable[str], what: str, where: str) -> set[str]:
    """The names that any of the globs matches. CheckpointError for a glob without a match."""
    patterns: Sequence[str] = (globs,) if isinstance(globs, str) else tuple(globs)
    found: set[str] = set()
    for glob in patterns:
        own = {name for name in names if fnmatchcase(name, glob)}
        if not own:
            raise CheckpointError(f"{what}: {glob!r} is none of {where}{nearest(glob, names)}")
        found |= own
    return found
