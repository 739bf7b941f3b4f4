"""A recipe at another batch size: what stays in training counts, and what the step may become.

With r = new/old counts per update, and half-lives that stay, retentions per update become β^r and a^r. What keeps its
half-life is a choice:

    all       every memory, and the shrink
    second    the shrink and the memories of squares; the first memory keeps its retention per update
              (arXiv 2507.07101)
    raw       none: every memory keeps its retention per update, and weights shrink by λ η with the λ of before:
              betas and weight_decay are what they were

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
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from .. import catalog, steady
from ..analysis import equilibria
from ..catalog import FAMILIES
from ..clock import Clock
from ..coordinates import COORDINATES
from ..counts import Count, complement, increment, life_of_loss, retention
from ..directions.elementwise import Identity, Rms
from ..errors import RecipeError
from ..noise import Noise, noise_of
from ..recipe import Group, Recipe
from ..recursion import Action

MEMORIES = ALL, SECOND, RAW = "all", "second", "raw"
RULES = NONE, LINEAR, SQRT, RADIUS = "none", "linear", "sqrt", "radius"
LARGER, SMALLER = "larger", "smaller"
SHRINK = "shrink_half_life"
ROUNDS = 60  # of the radius under `RAW`: its error halves in each


@dataclass(frozen=True)
class Recommendation:
    """What did best, and where that was measured."""

    memories: str
    rule: str
    measured: str


def _recommended() -> dict[tuple[str, str], Recommendation]:
    text = resources.files("dualopt.convert").joinpath("recommended.json").read_text(encoding="utf-8")
    return {
        (one["family"], one["direction"]): Recommendation(one["memories"], one["rule"], one["measured"])
        for one in json.loads(text)
    }


# (family of the catalogue, LARGER or SMALLER batch) -> what to do, as `python -m benchmarks.science.transfer` found it.
# What is not in here has not been measured, or no choice did best everywhere: nothing is recommended.
RECOMMENDED = _recommended()


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
    step = float(full["step"]) if full.get("step") else None
    radius, why = _radius(group, full, memories, old, new)
    factors: dict[str, float | None] = dict.fromkeys(RULES)
    if step is not None:
        factors = {NONE: 1.0, LINEAR: r, SQRT: math.sqrt(r), RADIUS: radius}
    factor = 1.0 if step is None else factors[rule]
    if factor is None:
        raise RecipeError(f"group {group.name!r}: the rule 'radius' is not defined for it: {why}")
    if memories == RAW and factor * complement(old.per_update, float(full.get(SHRINK, math.inf))) >= 1:
        raise RecipeError(
            f"group {group.name!r}: memories = 'raw' and a step {factor:.6g} times as large would shrink weights to "
            "nothing in an update"
        )
    options, lives = dict(group.options), []
    ends = {choice: _kept(full, choice, factor, old, new) for choice in MEMORIES}
    for key, after in ends[memories].items():
        before = float(full[key])
        if key in options or before != math.inf:
            options[key] = after / unit
            keeps = {choice: retention(new.per_update, ends[choice][key]) for choice in MEMORIES}
            lives.append(Life(key, before / unit, after / unit, retention(old.per_update, before), keeps))
    if step is not None and rule != NONE:
        options["step"] = step * factor
    notes = tuple(_notes(full, memories))
    way = RECOMMENDED.get((_family(group.optimizer), LARGER if r > 1 else SMALLER)) if r != 1 else None
    return Moved(dataclasses.replace(group, options=options), tuple(lives), step, factors, why, notes, way)


def _kept(action: Action, memories: str, factor: float, old: Count, new: Count) -> dict[str, float]:
    """The half-lives of an action after its move, in the base unit, with a step `factor` times as large."""
    r, found = new.per_update / old.per_update, {}
    for key, value in action.items():
        unread = key == "second_memory_half_life" and action.get("second_memory") is False
        if COORDINATES[key].kind == "half-life" and not unread:
            stays = memories == ALL or (memories == SECOND and key != "memory_half_life")
            found[key] = float(value) if stays else float(value) * r
    if memories == RAW and SHRINK in found:
        found[SHRINK] = _coupled(float(action[SHRINK]), factor, old, new)
    return found


def _coupled(half_life: float, factor: float, old: Count, new: Count) -> float:
    """The half-life whose loss per update is `factor` times what it was; 0 if that is everything."""
    return life_of_loss(min(1.0, factor * complement(old.per_update, half_life)), new.per_update)


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
    if memories == RAW and action.get(SHRINK, math.inf) < math.inf and action.get("step"):
        notes.append("its shrink follows the step: λ stays")
    if memories == SECOND and "memory_half_life" in action and "second_memory_half_life" not in action:
        notes.append("it has no second memory: its only one keeps its retention per update")
    return notes


def _radius(group: Group, before: Action, memories: str, old: Count, new: Count) -> tuple[float | None, str]:
    """(η*/η of the rule `radius`, "") or (None, why not)."""
    if "step" not in before:
        return None, "it has no step"
    if before["motion"] != "additive" or before.get("target_rms") is not None:
        return None, "its motion sets the radius"
    if before.get("l2"):
        return None, "its penalty shrinks with the step"
    if before[SHRINK] == math.inf:
        return None, "without shrink weights do not settle"
    direction = catalog.row(group.optimizer, before).direction
    noise = noise_of(direction, before)
    if not (noise.sized or isinstance(noise.geometry, Identity)):
        return None, "the size of its updates is not known"
    cautious = before["shrink"] == "cautious"
    square = _square(noise, before, old, cautious)
    if isinstance(noise.geometry, Identity):
        square *= new.per_update / old.per_update
    factor = 1.0
    for _ in range(ROUNDS if memories == RAW else 1):  # there (c_u*² A*)/(1 − a*²) falls with the factor
        after = {**before, **_kept(before, memories, factor, old, new)}
        factor = math.sqrt(square / _square(noise, after, new, cautious))
    return factor, ""


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
