"""Gradients no longer than a bound: `clip` of a group.

    g+ = min(1, c/‖g‖) g        ‖g‖ over all entries of all gradients of the group, of one update

before they enter the memories. Where a direction has length 1, an update is as long as η, however long the gradient is,
and there is nothing for `clip` to bound: such rows refuse it. Others take it: SGD, whose update is as long as what it
remembers, and Adam, in whose memories one large gradient stands beside many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from .fold import Mean
from .recursion import Array, Arrays, Namespace, Row
from .scaling import length

if TYPE_CHECKING:
    from .planned import PlannedGroup

GRADIENT = "gradient"


def refused(row: Row) -> str | None:
    """Why gradients of this row are not clipped; None if they can be."""
    if row.unit:
        return (
            f"the direction of {row.name} has length 1 however long the gradient is, so clipping bounds nothing. An "
            "update is as long as step: lower that; for a single gradient to count for less, lengthen memory_half_life"
        )
    if dict(row.folds) != {GRADIENT: Mean()}:
        return f"{row.name} makes more of its microbatches than their mean; clip them where they are computed"
    return None


def clipped(
    xp: Namespace,
    groups: Iterable[PlannedGroup],
    evidence: Mapping[str, Arrays],
    widen: Callable[[Array], Array],
) -> dict[str, Arrays]:
    """The evidence of one update, with the gradients of each group that has a `clip` bounded by it.

    Args:
        xp: the namespace of working arrays.
        groups: those of the plan.
        evidence: {name: {"gradient": array, ...}} of the parameters that have one, as they are stored.
        widen: stored → working, in which the clipped gradients are left.
    """
    found = dict(evidence)
    for planned in groups:
        bound, views = planned.group.clip, planned.views
        if bound is None:
            continue
        here = {n: widen(evidence[n][GRADIENT]) for n in sorted(views) if n in evidence and views[n].size}
        if not here:
            continue
        own = [length(xp, views[name].flat(xp, g), 0) for name, g in here.items()]
        norm = length(xp, xp.concat(own, axis=0), 0)
        one = xp.ones_like(norm)
        factor = xp.reshape(xp.where(norm > bound, (bound * one) / xp.where(norm > bound, norm, one), one), ())
        found |= {name: {**evidence[name], GRADIENT: factor * g} for name, g in here.items()}
    return found
