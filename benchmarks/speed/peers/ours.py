"""dualopt's recipe for a rule, whatever the framework."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from dualopt import Recipe

from ..rules import group

PER_UPDATE = 1024  # tokens


def recipe(rule: str, options: Mapping[str, Any]) -> Recipe:
    """Options: `group` adds coordinates or replaces them, `varying` asks for a schedule, `nonfinite` as in recipes."""
    tables: dict[str, Any] = {
        "count": {"unit": "tokens", "per_update": PER_UPDATE},
        "group": [dict(group(rule, PER_UPDATE, **options.get("group", {})))],
    }
    if "nonfinite" in options:
        tables["nonfinite"] = options["nonfinite"]
    if options.get("varying"):
        tables["schedule"] = {"shape": "cosine", "warmup": 100 * PER_UPDATE, "total": 4000 * PER_UPDATE}
    return Recipe.from_dict(tables)


def counts(options: Mapping[str, Any]) -> Callable[[], int]:
    """Δτ of the next update; with `varying` four sizes in turn."""
    sizes = (PER_UPDATE, 512, 768, 2048) if options.get("varying") else (PER_UPDATE,)
    endless = itertools.cycle(sizes)
    return lambda: next(endless)
