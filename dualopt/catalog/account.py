"""What there is to tell of a row: what `dualopt list NAME` prints, and its page in the documentation is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..coordinates import COORDINATES
from . import FAMILIES, meaning
from .entry import Entry
from .ways import WAYS

HALF_LIVES = "Default half-lives are in updates; a recipe multiplies them by its per_update."


@dataclass(frozen=True)
class Told:
    """One coordinate of a row, in words; `choices` are there if it is one of a few."""

    name: str
    default: str
    meaning: str
    valid: str
    choices: tuple[str, ...]


def family(entry: Entry) -> str:
    """The name of its family."""
    return next(name for name, members in FAMILIES.items() if entry in members)


def motions(entry: Entry) -> list[str]:
    """The motions that take it."""
    return [name for name in WAYS if meaning.not_taken(entry, entry.under(name)) is None]


def coordinates(entry: Entry, motion: str) -> list[Told]:
    """Its coordinates under a motion."""
    found = []
    for key, value in _used(entry, motion):
        known = COORDINATES[key]
        found.append(Told(key, _default(key, value), known.meaning, _valid(entry, key), known.choices))
    return found


def described(entry: Entry, motion: str | None = None) -> dict[str, Any]:
    """Everything that is known of it, as plain data; under its own motion, if none is named."""
    return {
        "name": entry.name,
        "summary": entry.summary,
        "source": entry.source,
        "family": family(entry),
        "motion": entry.motion,
        "ours": entry.ours,
        "defaults": dict(_used(entry, motion or entry.motion)),
        "motions": motions(entry),
        "meaningless": [{"what": one.what, "why": one.why} for one in meaning.of(entry)],
    }


def _used(entry: Entry, motion: str) -> list[tuple[str, Any]]:
    return list(entry.under(motion).items())


def _default(key: str, value: Any) -> str:
    if value is None:
        return "(optional)"
    if COORDINATES[key].kind == "half-life":
        return "never" if value == math.inf else f"{value:.4g} updates"
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()


def _valid(entry: Entry, key: str) -> str:
    """Which values it takes, and of half-lives in which unit."""
    found = COORDINATES[key]
    if found.kind == "switch":
        return "true or false"
    if found.kind == "choice":
        return ", ".join(entry.only.get(key, found.choices))
    if found.kind == "half-life":
        return f"in the recipe's unit, {found.range}"
    return f"a whole number {found.range}" if found.kind == "count" else found.range
