"""One action at another batch size: what stays in training counts, and what that makes of raw numbers."""

from __future__ import annotations

import dataclasses
import math

from .. import catalog
from ..coordinates import COORDINATES
from ..counts import increment, retention
from ..errors import RecipeError
from ..plaintext import readable
from ..recipe import Group


def transfer(
    group: Group, old_per_update: int, new_per_update: int, memories: str = "all"
) -> tuple[Group, tuple[str, ...]]:
    """The group for another batch size, with notes on what changes and what does not.

    ``all``: every half-life stays in training counts, so each retention per update becomes β^r with
    r = new/old. ``second`` (arXiv 2507.07101): only the second memory and the shrink do; the first memory
    keeps its retention per update. Half-lives, also default ones, are stated in the result.

    Raises: RecipeError for ``second`` on a row without a second memory.
    """
    old, new = increment(old_per_update, "old per_update"), increment(new_per_update, "new per_update")
    where = f"group {group.name!r}"
    if memories not in ("all", "second"):
        raise RecipeError(f"{where}: memories is 'all' or 'second', got {memories!r}")
    full = catalog.complete(group.optimizer, group.options, per_update=old)
    if memories == "second" and "second_memory_half_life" not in full:
        raise RecipeError(
            f"{where}: memories = 'second' keeps the second memory, and {group.optimizer} has none; use 'all'"
        )
    lives = {key: float(full[key]) for key in full if COORDINATES[key].kind == "half-life"}
    after = dict(lives)
    if memories == "second" and "memory_half_life" in lives:
        after["memory_half_life"] = lives["memory_half_life"] * new / old
    finite = {key: value for key, value in after.items() if key in group.options or value != math.inf}
    notes = [_life_note(key, lives[key], after[key], old, new) for key in finite]
    if full.get("readout", 1.0) not in (0.0, 1.0):
        notes.append(f"readout = {full['readout']:.6g} stays: it is a weight, not a retention")
    if full.get("step") and new != old:
        r = new / old
        notes.append(
            f"step = {full['step']:.6g} stays, as counts do not determine it: to keep the norm of the weights, "
            f"multiply it by a factor between {r:.3g} (normalised direction, long memory) and {math.sqrt(r):.3g} "
            "(Adam, or no memory)"
        )
    return dataclasses.replace(group, options={**group.options, **finite}), tuple(notes)


def _life_note(key: str, before: float, after: float, old: int, new: int) -> str:
    kept = f"{retention(old, before):.8g} -> {retention(new, after):.8g} per update"
    change = "stays" if before == after else f"becomes {readable(after)} and keeps its retention"
    return f"{key} = {readable(before)} {change}: {kept}"
