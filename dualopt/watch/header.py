"""The first line of a monitor's file: which run it is of, and what is expected of it."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace

from .. import cautions
from ..analysis.prediction import Outlook, Prediction, predicted
from ..plan import Plan
from .forecast import Forecast, forecasts
from .stream import FORMAT, Data


def identity(plan: Plan) -> Data:
    """What two runs of one file have in common: digests of the recipe and of the shapes of the parameters."""
    shapes = json.dumps(sorted((name, list(shape)) for name, shape in plan.shapes.items()))
    return {"recipe": plan.recipe.digest(), "shapes": hashlib.sha256(shapes.encode()).hexdigest()}


def paced(plan: Plan, per_update: int) -> Plan:
    """`plan` for updates of another usual size; half-lives stay what they are, those of the catalogue too."""
    other = copy.copy(plan)
    other.recipe = replace(plan.recipe, count=replace(plan.recipe.count, per_update=per_update))
    return other


def made(own: Data, plan: Plan, starts: Mapping[str, float], end: int, dtypes: Mapping[str, str]) -> Data:
    """The header of the run `own` (see `identity`) by `plan` until `end`; `starts` and `dtypes` as of `predict`."""
    starts = {name: x for name, x in starts.items() if math.isfinite(x)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cautions.too_fine(plan.recipe.count, plan.groups, dtypes)
    outlook = predicted(plan, starts=starts, count=end)
    told = [*dict.fromkeys(str(one.message) for one in caught), *outlook.warnings]
    ways = forecasts(plan, starts, outlook.updates, dtypes)
    groups = [_group(g, way) for g, way in zip(outlook.groups, ways, strict=True)]
    return {
        "format": FORMAT,
        **own,
        **_summary(plan, outlook),
        "warnings": told,
        "starts": starts,
        "groups": groups,
    }


def _summary(plan: Plan, outlook: Prediction) -> Data:
    count = plan.recipe.count
    return {
        "count": {"unit": count.unit, "base": count.base, "per_update": count.per_update},
        "schedule": outlook.schedule,
        "end": outlook.end,
    }


def _group(g: Outlook, way: Forecast) -> Data:
    counts, curves = way.thinned()
    seen = max(g.seen, key=lambda one: len(one.names) * math.prod(one.shape))
    told = {
        "name": g.name,
        "optimizer": g.optimizer,
        "motion": g.motion,
        "parameters": g.parameters,
        "entries": g.entries,
        "memory_half_life": _digits(g.memory_half_life),
        "shrink_half_life": _digits(g.shrink_half_life),
        "amplification": _digits(g.amplification),
        "left": _digits(g.left),
        "settles": seen.settles,
        "turns": seen.turns,
    }
    return told | {
        "counts": counts,
        "curves": {name: [_digits(x) for x in values] for name, values in curves.items()},
        "bands": {name: [band.low, band.high, band.slack] for name, band in way.bands.items()},
        "most": dict(way.most),
    }


def _digits(x: float) -> float | None:
    """Six digits; None for what is not finite."""
    return float(f"{x:.6g}") if math.isfinite(x) else None
