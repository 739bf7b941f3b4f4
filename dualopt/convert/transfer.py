"""A recipe at another batch size: what stays in training counts, and what the step may become.

With r = new/old counts per update, and half-lives that stay, retentions per update become β^r and a^r. What keeps its
half-life is a choice:

    all       every memory, and the shrink
    second    the shrink and the memories of squares; the first memory keeps its retention per update
              (arXiv 2507.07101)

Counts do not determine the step. Its rules:

    none      η
    linear    r η
    sqrt      √r η
    radius    √((1 − a*²) c_u² A / ((1 − a²) c_u*² A*)) η: weights settle at the same radius if gradients are noise
              (`steady`); c_u² A is the square of all that one gradient does

For signs, polar factors and other directions of fixed length `radius` is about r with a long memory and √r without; for
Adam, whose update is as much shorter as its memory is longer, √r. The gradient noise of SGDM is that of a mean over the
batch, so its c_u² falls by r besides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from .. import catalog, steady
from ..analysis import equilibria
from ..catalog import FAMILIES
from ..clock import Clock
from ..coordinates import COORDINATES
from ..counts import Count, complement, increment, retention
from ..directions.elementwise import Identity, Rms
from ..errors import RecipeError
from ..noise import Noise, noise_of
from ..recipe import Group, Recipe
from ..recursion import Action

MEMORIES = ALL, SECOND = "all", "second"
RULES = NONE, LINEAR, SQRT, RADIUS = "none", "linear", "sqrt", "radius"
LARGER, SMALLER = "larger", "smaller"


@dataclass(frozen=True)
class Recommendation:
    """What did best, and where that was measured."""

    memories: str
    rule: str
    measured: str


# (family of the catalogue, LARGER or SMALLER batch) -> what to do. Empty until it has been measured: a rule that is not
# in here is not recommended.
RECOMMENDED: dict[tuple[str, str], Recommendation] = {}


@dataclass(frozen=True)
class Life:
    """A half-life before and after, in the unit of the recipe, and what an update keeps by it.

    Attributes:
        kept: before.
        keeps: after, by each choice of memories.
    """

    key: str
    before: float
    after: float
    kept: float
    keeps: Mapping[str, float]


@dataclass(frozen=True)
class Moved:
    """A group at another batch size.

    Attributes:
        group: with the rule that was chosen.
        lives: its half-lives, also those that it does not state.
        step: before; None if the row has none.
        factors: rule -> η*/η; None: there is none.
        why: there is no radius to keep.
        notes: what else is to be known.
        recommended: what has been measured for such a row and direction.
    """

    group: Group
    lives: tuple[Life, ...]
    step: float | None
    factors: Mapping[str, float | None]
    why: str
    notes: tuple[str, ...]
    recommended: Recommendation | None


def transfer(
    recipe: Recipe, per_update: int, *, memories: str = ALL, rule: str = NONE
) -> tuple[Recipe, tuple[Moved, ...]]:
    """The recipe in updates of `per_update` counts of its base unit, and what became of each group.

    Half-lives that a recipe does not state are in updates; in the result they are stated.

    Raises:
        RecipeError: the recipe counts updates; an unknown choice of memories or rule; a rule that is not defined for a
            group.
    """
    _known("memories", memories, MEMORIES)
    _known("rule", rule, RULES)
    count = recipe.count
    if count.base == "updates":
        raise RecipeError(
            "[count] unit = 'updates' does not say how much one takes in: state unit = 'tokens' or 'samples', "
            "and per_update"
        )
    after = dataclasses.replace(count, per_update=increment(per_update, "per_update"))
    moved = tuple(_moved(group, count, after, memories, rule) for group in recipe.groups)
    return dataclasses.replace(recipe, count=after, groups=tuple(one.group for one in moved)), moved


def _known(what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise RecipeError(f"{what} is one of {', '.join(names)}, got {name!r}")


def _moved(group: Group, old: Count, new: Count, memories: str, rule: str) -> Moved:
    unit, r = old.to_base(1.0), new.per_update / old.per_update
    full = catalog.complete(group.optimizer, group.options, per_update=old.per_update, unit=unit)
    options, lives = dict(group.options), []
    for key, value in full.items():
        unread = key == "second_memory_half_life" and full.get("second_memory") is False
        if COORDINATES[key].kind != "half-life" or unread:
            continue
        before = float(value)
        ends = {choice: before * r if choice == SECOND and key == "memory_half_life" else before for choice in MEMORIES}
        after = ends[memories]
        if key in options or before != math.inf:
            options[key] = after / unit
            keeps = {choice: retention(new.per_update, end) for choice, end in ends.items()}
            lives.append(Life(key, before / unit, after / unit, retention(old.per_update, before), keeps))
    target = {**full, **{one.key: one.after * unit for one in lives}}
    radius, why = _radius(group, full, target, old, new)
    step = float(full["step"]) if full.get("step") else None
    factors: dict[str, float | None] = dict.fromkeys(RULES)
    if step is not None:
        factors = {NONE: 1.0, LINEAR: r, SQRT: math.sqrt(r), RADIUS: radius}
        factor = factors[rule]
        if factor is None:
            raise RecipeError(f"group {group.name!r}: the rule 'radius' is not defined for it: {why}")
        if rule != NONE:
            options["step"] = step * factor
    notes = tuple(_notes(full, memories))
    way = RECOMMENDED.get((_family(group.optimizer), LARGER if r > 1 else SMALLER))
    return Moved(dataclasses.replace(group, options=options), tuple(lives), step, factors, why, notes, way)


def _family(optimizer: str) -> str:
    return next(name for name, rows in FAMILIES.items() if any(row.name == optimizer for row in rows))


def _notes(action: Action, memories: str) -> list[str]:
    notes = []
    if action.get("readout", 1.0) not in (0.0, 1.0):
        notes.append(f"readout = {action['readout']:.6g} stays: it is a weight, not a retention")
    if action.get("interpolation"):
        notes.append(f"interpolation = {action['interpolation']:.6g} stays: it is a weight, not a retention")
    if action.get("l2"):
        notes.append(
            f"l2 = {action['l2']:.6g} stays: what a penalty shrinks in an update follows the step, not the count"
        )
    if memories == SECOND and "memory_half_life" in action and "second_memory_half_life" not in action:
        notes.append("it has no second memory: its only one keeps its retention per update")
    return notes


def _radius(group: Group, before: Action, after: Action, old: Count, new: Count) -> tuple[float | None, str]:
    """(η*/η of the rule `radius`, "") or (None, why not)."""
    if "step" not in before:
        return None, "it has no step"
    if before["motion"] != "additive" or before.get("target_rms") is not None:
        return None, "its motion sets the radius"
    if before.get("l2"):
        return None, "its penalty shrinks with the step"
    if before["shrink_half_life"] == math.inf:
        return None, "without shrink weights do not settle"
    direction = catalog.row(group.optimizer, before).direction
    noise = noise_of(direction, before)
    if not (noise.sized or isinstance(noise.geometry, Identity)):
        return None, "the size of its updates is not known"
    cautious = before["shrink"] == "cautious"
    ratio = _square(noise, before, old, cautious) / _square(noise, after, new, cautious)
    if isinstance(noise.geometry, Identity):
        ratio *= new.per_update / old.per_update
    return math.sqrt(ratio), ""


def _square(noise: Noise, action: Action, count: Count, cautious: bool) -> float:
    """c_u² A/(1 − a²), but for what does not depend on the increment."""
    mu, c = noise.memory(action, Clock(count.per_update, count.per_update))
    lost = complement(count.per_update, action["shrink_half_life"])

    def total(lost: float) -> float:
        return noise.amplification(lost, mu, c)

    if cautious:
        lost = equilibria.masked(lost, total, signs=noise.signs)
    of_one = 1 / steady.readout(mu, c) if isinstance(noise.geometry, Identity | Rms) else 1.0
    return of_one * total(lost) / float(equilibria.lost_square(lost))
