"""Knobs to the group of a recipe, and back, at one increment."""

from __future__ import annotations

from .. import catalog
from ..coordinates import COORDINATES
from ..counts import Count, increment
from ..errors import RecipeError
from ..recipe import Group
from .family import At
from .knobs import Knobs, Source
from .sources import targets

OWN = ("name", "match", "ndim", "orientation", "view", "blocks", "optional")
PLAIN = {"motion": "additive", "target_rms": None, "steady_rms": None}  # what all knobs mean


def counted(count: Count | int) -> Count:
    """A count from itself, or from the Δτ of one update in an unnamed unit."""
    return count if isinstance(count, Count) else Count("samples", increment(count, "per_update"))


def to_action(knobs: Knobs, count: Count | int, *, continued: bool = False, **own: object) -> Group:
    """The group that does what `knobs` do in updates of `per_update` counts.

    Args:
        count: of the recipe, or its `per_update`. Half-lives are in its unit.
        continued: the memory comes from a state of this optimizer, not from its beginning.
        own: other keys of the group: `name`, `match`, `ndim`, ...

    Raises:
        RecipeError: no row does the same.
    """
    count, fields = counted(count), knobs.fields
    at = At(count.per_update, knobs.source.name, continued)
    refused = knobs.source.refused(fields)
    if refused:
        raise at.error(refused)
    image = knobs.source.family.forward(fields, at)
    unit = count.to_base(1.0)
    options = {
        key: value / unit if COORDINATES[key].kind == "half-life" else value for key, value in image.options.items()
    }
    return Group(image.row, options, **{**image.own, **own})


def inexact(knobs: Knobs) -> tuple[str, ...]:
    """What the group of `to_action` does otherwise than these knobs; nothing where they are the same mathematics."""
    return knobs.source.inexact(knobs.fields)


def to_knobs(group: Group, count: Count | int, target: str) -> Knobs:
    """The knobs that do what `group` does in updates of `per_update` counts: the inverse of `to_action`.

    Args:
        count: of the recipe, or its `per_update`.
        target: a source such as ``torch-adamw``, or a library: the first of its optimizers that does the same.

    Raises:
        RecipeError: none does, with the reason.
    """
    count, where, failures = counted(count), f"group {group.name!r}", []
    for source in targets(target):
        if group.optimizer not in source.family.rows:
            continue
        try:
            return _knobs(group, count, source, where)
        except RecipeError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    raise RecipeError(f"{where}: {group.optimizer} has no image in {target}")


def _knobs(group: Group, count: Count, source: Source, where: str) -> Knobs:
    action = catalog.complete(group.optimizer, group.options, per_update=count.per_update, unit=count.to_base(1.0))
    at = At(count.per_update, f"{where}: {source.name}")
    for key, plain in PLAIN.items():
        if action.get(key) != plain:
            raise RecipeError(f"{where}: knobs have no image of {key} = {action[key]!r}")
    if action["shrink"] not in source.family.shrinks:
        raise RecipeError(f"{where}: {source.name} has no image of shrink = {action['shrink']!r}")
    own = {key: getattr(group, key) for key in OWN}
    return Knobs.stating(source, source.family.back(group.optimizer, action, own, at), where)
