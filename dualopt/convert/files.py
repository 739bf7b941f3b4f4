"""Files of knobs: recipes whose groups are written in the knobs of a library.

    [count]
    unit = "tokens"
    per_update = 524_288

    [[group]]
    name = "hidden"
    match = ["blocks.*.weight"]
    ndim = 2
    from = "torch-muon"
    lr = 0.02

    [[group]]
    name = "rest"
    from = "torch-adamw"
    lr = 3e-4
    betas = [0.9, 0.95]

TOML or JSON. `from` names the source, and its knobs have the names that they have there; everything else is as in a
recipe, also groups that name an `optimizer`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import toml
from ..counts import Count, complement
from ..errors import CountError, RecipeError
from ..recipe import Group, Recipe
from .knobs import Knobs
from .maps import OWN, inexact, to_action
from .sources import source


@dataclass(frozen=True)
class Read:
    """A recipe and where it is from.

    Attributes:
        knobs: of the groups that were written as knobs, by name.
        notes: what these do otherwise than the recipe, by name.
        remarks: what is to be known of all.
    """

    recipe: Recipe
    knobs: Mapping[str, Knobs]
    notes: Mapping[str, tuple[str, ...]]
    remarks: tuple[str, ...] = ()


def read(path: str | Path) -> Read:
    """A recipe or a file of knobs. RecipeError for anything else, naming the file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        tables = json.loads(text) if path.suffix == ".json" else toml.tables(text)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise RecipeError(f"{path}: not valid {kind} ({error})") from error
    if not isinstance(tables, dict):
        raise RecipeError(f"{path}: a table with a list of groups")
    try:
        return from_tables(tables)
    except (RecipeError, CountError) as error:
        raise RecipeError(f"{path}: {error}") from error


def from_tables(tables: Mapping[str, Any]) -> Read:
    """The same from the tables of a file."""
    groups = tables.get("group")
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise RecipeError("groups are written [[group]], with two brackets")
    frame = Recipe.from_dict({**tables, "group": [{"optimizer": "adamw"}]})  # all but the groups
    found: list[Group] = []
    knobs: dict[str, Knobs] = {}
    for i, table in enumerate(groups):
        name = f"group {i + 1}"
        if "from" not in table:
            found.append(Group.from_dict(table, name))
            continue
        own = {"name": name, **{key: table[key] for key in OWN if key in table}}
        try:
            given = {str(key): value for key, value in table.items() if key not in (*OWN, "from")}
            stated = Knobs(source(str(table["from"])), **given)
            found.append(to_action(stated, frame.count, **own))
        except RecipeError as error:
            raise RecipeError(f"group {own['name']!r}: {error}") from error
        knobs[found[-1].name] = stated
    recipe = dataclasses.replace(frame, groups=tuple(found))
    return followed(recipe, knobs, stated="drives" in tables.get("schedule", {}))


def of_knobs(knobs: Knobs, count: Count, *, continued: bool = False) -> Read:
    """The recipe of one group; `continued` as in `to_action`."""
    group = to_action(knobs, count, continued=continued)
    return followed(Recipe((group,), count), {group.name: knobs}, stated=False)


def followed(recipe: Recipe, knobs: Mapping[str, Knobs], *, stated: bool) -> Read:
    """With a shrink that follows the schedule of the step, as it does in all these libraries, if it is not stated."""
    notes = {name: inexact(found) for name, found in knobs.items()}
    shrinking = [g for g in recipe.groups if g.name in knobs and shrink_half_life(g) < math.inf]
    direct = [g.name for g in shrinking if g.options.get("shrink") != "corrected"]
    if not direct or stated:
        return Read(recipe, knobs, notes)
    if recipe.schedule.shape == "constant" and not recipe.schedule.warmup:
        return Read(recipe, knobs, notes, (CONSTANT,))
    if recipe.schedule.equal_weight or recipe.shrink_schedule is not None:
        return Read(recipe, knobs, notes)
    if any(g.options.get("shrink") == "corrected" for g in recipe.groups):
        return Read(recipe, knobs, notes, (f"{', '.join(direct)}: {APART}",))
    schedule = dataclasses.replace(recipe.schedule, drives="both")
    unit = recipe.count.to_base(1.0)
    largest = max(complement(recipe.count.per_update, shrink_half_life(g) * unit) for g in shrinking)
    more = -math.log1p(-largest) / largest - 1  # (1 − (1 − c)^q)/(q c) − 1 for q → 0
    remark = f"{BOTH}; 1 − a is larger by at most {more:.1e} of it"
    return Read(dataclasses.replace(recipe, schedule=schedule), knobs, notes, (remark,))


CONSTANT = "the library's decay follows its lr: if you add a [schedule], state drives = 'both'"
APART = "the library's decay follows its lr, but beside shrink = 'corrected' the schedule drives the step alone"
BOTH = "the library's decay follows its lr, so drives = 'both': a = 2^(−q Δτ/h_a) in place of 1 − q·lr·decay"


def shrink_half_life(group: Group) -> float:
    """The one that a group states, in the unit of its recipe; inf without."""
    return float(group.options.get("shrink_half_life", math.inf))
