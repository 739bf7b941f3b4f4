"""What another optimizer remembers, taken over by a plan: arrays of any library, and counts of the host.

The step numbers of other optimizers become counts, τ = number · Δτ with the Δτ of their updates, so a corrected memory
continues with the correction that it had, parameter by parameter. Arrays are renamed; that of a heavy ball is scaled
(`layout`), one rounding. Nothing else is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..counts import complement, increment
from ..errors import CheckpointError, nearest
from ..plan import Plan
from ..planned import PlannedGroup
from ..recursion import Arrays
from .knobs import Source

Kept = Mapping[str, Mapping[str, Any]]  # {parameter: {the library's key: array}}


@dataclass(frozen=True)
class Adopted:
    """The state of the parameters that were taken over, {name: {"m": ...}}, and their counts."""

    state: dict[str, Arrays]
    counts: dict[str, int]


def adopt(
    plan: Plan,
    source: Source,
    kept: Kept,
    *,
    updates: int | None = None,
    per_update: int | None = None,
    dampening: float = 0.0,
) -> Adopted:
    """The state and counts with which parameters of `plan` continue what `source` began.

    Args:
        kept: what it remembers of each parameter, in the shape and layout of the plan's; other parameters of the plan
            stay as they are.
        updates: how many it has carried out. Needed where the optimizer does not count them itself.
        per_update: Δτ of these updates; default: that of the recipe.
        dampening: of a heavy ball.

    Raises:
        CheckpointError: unknown parameters, another row, other arrays or shapes, no valid number of updates.
        CountError: `per_update` is not a positive whole number.
    """
    if source.layout is None:
        raise CheckpointError(f"of {source.name} no state can be taken over")
    every = plan.recipe.count.per_update if per_update is None else increment(per_update, "per_update")
    found = Adopted({}, {})
    for name, arrays in kept.items():
        if name not in plan.counts:
            raise CheckpointError(f"state of {name!r}: no such parameter{nearest(name, plan.counts)}")
        planned = plan.groups[plan.group_of[name]]
        if planned.row.name not in source.family.rows or planned.sums or planned.leads:
            raise CheckpointError(
                f"state of {name!r}: {source.name} cannot continue as {planned.row.name} of group "
                f"{planned.group.name!r}; it can as {' or '.join(source.family.rows)} with an additive motion"
            )
        found.state[name] = _renamed(planned, name, source, arrays, every, dampening)
        found.counts[name] = every * _updates(name, source, arrays, updates)
    return found


def _renamed(
    planned: PlannedGroup, name: str, source: Source, arrays: Mapping[str, Any], every: int, dampening: float
) -> Arrays:
    layout = source.layout
    assert layout is not None
    for key, other in layout.refused.items():
        if key in arrays:
            raise CheckpointError(f"state of {name!r} is that of {other}, which no row continues")
    wanted = {ours: theirs for theirs, ours in layout.memories.items()}
    memories = {}
    for key in _expected(planned):
        theirs = wanted.get(key)
        if theirs is None or theirs not in arrays:
            has = ", ".join(map(str, arrays)) or "nothing"
            raise CheckpointError(f"state of {name!r}: {source.name} keeps {theirs or key!r}, this one has {has}")
        x = arrays[theirs]
        if tuple(x.shape) != planned.views[name].stored:
            raise CheckpointError(
                f"state of {name!r}: {theirs} has shape {tuple(x.shape)}, the parameter {planned.views[name].stored}"
            )
        scale = (
            complement(every, float(planned.action["memory_half_life"])) / (1 - dampening) if layout.heavy_ball else 1.0
        )
        memories[key] = x if scale == 1.0 else x * scale
    return memories


def _expected(planned: PlannedGroup) -> tuple[str, ...]:
    """The names of the memories of a row."""
    names = {"c_m": "m", "c_v": "v"}
    return tuple(names[scalar] for scalar in planned.row.memory.needs)


def _updates(name: str, source: Source, arrays: Mapping[str, Any], stated: int | None) -> int:
    key = source.layout.updates if source.layout is not None else None
    if key is None or key not in arrays:
        if stated is None:
            raise CheckpointError(
                f"state of {name!r}: {source.name} does not say after how many updates; state updates = ..."
            )
        number: Any = stated
    else:
        number = float(arrays[key])
    if isinstance(number, bool) or number != int(number) or not 0 < number < 2**53:
        raise CheckpointError(f"state of {name!r}: the number of updates is a whole number > 0, got {number!r}")
    if stated is not None and int(number) != stated:
        raise CheckpointError(f"state of {name!r} is of {int(number)} updates, and {stated} were stated")
    return int(number)
