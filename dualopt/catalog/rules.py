"""Which coordinates of one row exclude one another, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..motion import ROTATIONAL, SPHERE
from ..noise import noise_of
from ..recursion import Direction

# A stated coordinate -> those that it takes the place of.
INSTEAD = {"steady_rms": ("step",)}


def refuse(stated: Mapping[str, Any], full: Mapping[str, Any], direction: Direction, where: str) -> None:
    """RecipeError for a combination without meaning.

    Args:
        stated: the coordinates of the recipe, checked one by one.
        full: the same with the defaults of the row, None for optional ones.
        direction: of the row with these options.
        where: begins the messages.
    """
    why = _why(stated, full, direction)
    if why:
        raise RecipeError(f"{where}: {why}")


def _why(stated: Mapping[str, Any], full: Mapping[str, Any], direction: Direction) -> str:
    shrink, motion = full.get("shrink"), full["motion"]
    for key, others in INSTEAD.items():
        for other in (other for other in others if key in stated and other in stated):
            return f"{key} takes the place of {other!r}; drop one of them"
    if "solve" in stated and "target_rms" not in stated:
        return "solve names what target_rms is reached by; state target_rms, or drop 'solve'"
    if stated.get("solve") == "shrink":
        if "shrink_half_life" in stated:
            return "solve = 'shrink' finds the shrink of every update; drop 'shrink_half_life'"
        if shrink == "corrected":
            return "solve = 'shrink' finds the shrink of every update; shrink is direct or cautious then"
    if "steady_rms" in stated:
        if "target_rms" in stated:
            return "steady_rms and target_rms are two ways to an RMS; drop one of them"
        if shrink == "cautious":
            return "steady_rms derives the step for a shrink of all entries, and shrink = 'cautious' leaves some out"
        if not noise_of(direction, full).sized:
            return "steady_rms needs an update of known size, and that of this row is the gradient's; state a step"
    if motion == ROTATIONAL or "steady_rms" in stated:
        what = "motion = 'rotational'" if motion == ROTATIONAL else "steady_rms"
        if full["shrink_half_life"] == math.inf:
            return f"{what} needs a finite shrink_half_life: without shrink there is no steady state"
    if "correlation" in stated:
        if motion != ROTATIONAL and "steady_rms" not in stated:
            return "correlation is used by motion = 'rotational' and by steady_rms; drop it"
        if not noise_of(direction, full).signs:
            return "correlation is a choice for directions that are signs; drop it"
    if motion == SPHERE and "memory_half_life" not in full:
        return "motion = 'sphere' turns by the memory_half_life, and this row has no such memory"
    return ""
