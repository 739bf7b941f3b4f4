"""The recipes of the small GPTs, and sweeps of their steps.

Batches are a quarter of those of `benchmarks.gpt_rows`; half-lives are as many updates as there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.gpt_rows import rows
from dualopt import Recipe
from dualopt.counts import complement, life_of_loss
from dualopt.errors import RecipeError

from .gpt import Array

PER_UPDATE = 256  # tokens
TOKENS = 256 * PER_UPDATE  # of a run
MOST = 8  # factors of a sweep
KNOBS = "step", "memory_half_life", "second_memory_half_life", "shrink_half_life"


def _here(lives: Mapping[str, float]) -> dict[str, float]:
    return {key: life * PER_UPDATE / rows.PER_UPDATE for key, life in lives.items()}


MEMORY, SQUARES, SHRINK = _here(rows.MEMORY), _here(rows.SQUARES), _here(rows.SHRINK)
ADAMW = ({"optimizer": "adamw", "step": 0.016, **MEMORY, **SQUARES, **SHRINK},)
SCIONC = (
    {
        "name": "embedding",
        "match": ["embedding.weight"],
        "orientation": "in_out",
        "optimizer": "scionc",
        "norm": "column",
        "step": 0.2,
        **MEMORY,
        **SHRINK,
    },
    {"name": "head", "match": ["head.weight"], "optimizer": "scionc", "norm": "sign", "step": 0.3, **MEMORY, **SHRINK},
    {
        "name": "hidden",
        "match": ["blocks.*"],
        "optimizer": "scionc",
        "norm": "spectral",
        "step": 0.08,
        "readout": 0.9,
        **MEMORY,
        **SHRINK,
    },
)
GROUPS: dict[str, tuple[dict[str, Any], ...]] = {"adamw": ADAMW, "scionc": SCIONC}
TITLES = {"adamw": "AdamW", "scionc": "ScionC"}


def schedule(tokens: int) -> dict[str, Any]:
    """A sixteenth to warm up, the last third to zero."""
    return {"shape": "warmup-stable-decay", "warmup": tokens / 16, "total": tokens, "decay": tokens / 3}


def recipe(optimizer: str, tokens: int, **tables: Any) -> Recipe:
    """The recipe of the middle of the first grid, for a run of `tokens`."""
    count = {"unit": "tokens", "per_update": PER_UPDATE}
    given = {"count": count, "schedule": schedule(tokens), "group": GROUPS[optimizer], **tables}
    return Recipe.from_dict(given)


def told(recipe: Recipe) -> str:
    """The count, the steps and the half-lives of a recipe, for a page."""
    groups = [
        (f"{group.name}: " if len(recipe.groups) > 1 else "")
        + ", ".join(f"`{key}` {value:,.6g}" for key, value in group.options.items() if key in KNOBS)
        for group in recipe.groups
    ]
    return f"updates of {recipe.count.per_update:,} tokens; {'; '.join(groups)}."


def scaled(recipe: Recipe, factor: float, *, coupled: bool = False) -> Recipe:
    """Every step times `factor`; with `coupled` λ = (1 − a)/η stays, otherwise the half-life of the shrink."""
    groups = []
    for group in recipe.groups:
        options = {**group.options, "step": float(group.options["step"]) * factor}
        if coupled:
            options["shrink_half_life"] = shrunk(float(group.options["shrink_half_life"]), factor, recipe)
        groups.append(dataclasses.replace(group, options=options))
    return dataclasses.replace(recipe, groups=tuple(groups))


def shrunk(half_life: float, factor: float, recipe: Recipe) -> float:
    """The half-life at which an update loses `factor` times as much. RecipeError if that is everything."""
    unit = recipe.count.to_base(1.0)
    lost = factor * complement(recipe.count.per_update, half_life * unit)
    if lost >= 1:
        raise RecipeError(f"an update that loses {factor:g} times as much loses everything: there is no half-life")
    return life_of_loss(lost, recipe.count.per_update) / unit


Measure = Callable[[Sequence[Recipe]], Array]
Sweep = Mapping[float, Array]  # factor of the step -> losses by seed


def swept(
    makes: Mapping[str, Callable[[float], Recipe]], factors: Sequence[float], measure: Measure
) -> dict[str, dict[float, Array]]:
    """Sweeps of several recipes over one grid, each extended by factors of 2 while its best is at an end.

    It ends where a recipe would shrink weights to nothing in an update.
    """
    found: dict[str, dict[float, Array]] = {name: {} for name in makes}
    pending = [(name, factor) for name in makes for factor in factors]
    while pending:
        for (name, factor), losses in zip(pending, measure([makes[n](f) for n, f in pending]), strict=True):
            found[name][factor] = losses
        pending = [
            (name, end)
            for name, sweep in found.items()
            if (end := beyond(sweep)) is not None and _exists(makes[name], end)
        ]
    return found


def _exists(make: Callable[[float], Recipe], factor: float) -> bool:
    try:
        make(factor)
    except RecipeError:
        return False
    return True


def beyond(sweep: Sweep) -> float | None:
    """The factor that would extend a sweep; None if its best is inside, or it is long enough."""
    best, low, high = best_of(sweep), min(sweep), max(sweep)
    end = low / 2 if best == low else high * 2 if best == high else None
    return end if len(sweep) < MOST else None


def best_of(sweep: Sweep) -> float:
    """The factor with the smallest mean loss."""
    return min(sweep, key=lambda factor: float(np.mean(sweep[factor])))


def least(sweep: Sweep) -> Array:
    """The losses of the best factor."""
    return sweep[best_of(sweep)]


def noise(runs: Sequence[Array]) -> float:
    """Twice the standard error of a difference of two means over seeds; the variance is pooled over `runs`."""
    return 2 * math.sqrt(float(np.mean([x.var(ddof=1) for x in runs])) * 2 / len(runs[0]))


def plain(losses: Any) -> Any:
    """Losses under any keys as JSON has them: numbers as keys become text, and a run that diverged null."""
    if isinstance(losses, Mapping):
        named = (key if isinstance(key, str) else f"{key:g}" for key in losses)
        return dict(zip(named, map(plain, losses.values()), strict=True))
    return [float(x) if math.isfinite(x) else None for x in losses]


def optimum(sweep: Sweep) -> float:
    """log₂ of the best factor: the vertex of the parabola through the best and its neighbours.

    The best itself where it is at an end or a neighbour diverged.
    """
    factors = sorted(sweep)
    i = factors.index(best_of(sweep))
    x = np.log2(factors)
    if not 0 < i < len(factors) - 1:
        return float(x[i])
    y = [float(np.mean(sweep[f])) for f in factors[i - 1 : i + 2]]
    if not all(map(math.isfinite, y)):
        return float(x[i])
    a, b, _ = np.polyfit(x[i - 1 : i + 2] - x[i], y, 2)
    return float(x[i] - b / (2 * a)) if a > 0 else float(x[i])
