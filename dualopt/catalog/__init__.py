"""Every named optimizer as one row: signal + memory + direction + motion, defaults, source.

The tables are in the files beside this one, a family each, and the motions in `ways`. Default half-lives are in
updates; a recipe multiplies them by its `per_update`. A coordinate whose default is None is optional. `step`
defaults are those of the sources.
"""

from __future__ import annotations

from ..coordinates import COORDINATES, Value, hint
from ..directions.polar import EXACT
from ..errors import RecipeError, nearest
from ..recursion import Row
from .elementwise import ELEMENTWISE
from .entry import Entry, Options
from .schatten import SCHATTEN
from .spectral import POLAR_WAY, SPECTRAL
from .ways import WAYS

ENTRIES: dict[str, Entry] = {e.name: e for e in (*ELEMENTWISE, *SPECTRAL, *SCHATTEN)}


def entry(name: object, where: str = "optimizer") -> Entry:
    """The entry called `name`; RecipeError with the nearest valid name otherwise."""
    if not isinstance(name, str) or name not in ENTRIES:
        raise RecipeError(
            f"{where}: {name!r} is not an optimizer; known are {', '.join(ENTRIES)}{nearest(str(name), ENTRIES)}"
        )
    return ENTRIES[name]


def check(name: str, stated: Options, where: str) -> dict[str, Value]:
    """The stated coordinates of a row, each checked.

    Raises:
        RecipeError: unknown names (with the nearest), values out of range, coordinates that the row
            does not use (with those it uses), and combinations without meaning.
    """
    found = entry(name, where)
    motion = COORDINATES["motion"].check(stated.get("motion", found.motion), where)
    uses = found.under(str(motion))
    checked: dict[str, Value] = {}
    for key, value in stated.items():
        if key not in COORDINATES:
            raise RecipeError(f"{where}: unknown key {key!r}{hint(key, COORDINATES)}")
        if key not in uses:
            moving = "" if motion == found.motion else f" with motion = {motion!r}"
            raise RecipeError(f"{where}: {name}{moving} does not use {key!r}; it uses {', '.join(uses)}")
        checked[key] = COORDINATES[key].check(value, where)
    full = {**uses, **checked}
    if full.get("strict_mask") is not None and full.get("shrink") != "cautious":
        raise RecipeError(f"{where}: strict_mask belongs to shrink = 'cautious', but shrink = {full.get('shrink')!r}")
    if "polar" in checked and "norm" in full and not str(full["norm"]).startswith("spectral"):
        raise RecipeError(f"{where}: norm = {full['norm']!r} has no polar factor; drop 'polar'")
    iterated = [key for key in POLAR_WAY if key in checked]
    if iterated and full.get("polar") == EXACT:
        raise RecipeError(f"{where}: polar = 'exact' is not iterated; drop {iterated[0]!r}")
    if iterated and "norm" in full and not str(full["norm"]).startswith("spectral"):
        raise RecipeError(f"{where}: norm = {full['norm']!r} has no polar factor; drop {iterated[0]!r}")
    return checked


def complete(
    name: str, stated: Options, *, per_update: float = 1.0, unit: float = 1.0, exact_polar: bool = False
) -> dict[str, Value]:
    """All coordinates of a row in the base unit: stated half-lives times `unit`, default ones times `per_update`.

    `exact_polar` is the float64 rule: a polar method that is not stated is the exact polar factor.
    """
    full: dict[str, Value] = {}
    found = entry(name)
    for key, default in found.under(str(stated.get("motion", found.motion))).items():
        value, factor = (stated[key], unit) if key in stated else (default, per_update)
        if value is None:
            continue
        if key == "polar" and key not in stated and exact_polar:
            value = EXACT
        full[key] = float(value) * factor if COORDINATES[key].kind == "half-life" else value
    return full


def row(name: str, options: Options) -> Row:
    """The row called `name` with its structural choices taken from `options` (as from `complete`)."""
    found = entry(name)
    signal, memory, direction = found.parts(options)
    motion = WAYS[options["motion"]].build(options, signal, memory, direction)
    resolved = {key: str(value) for key, value in options.items() if COORDINATES[key].decides}
    if not str(resolved.get("norm", "spectral")).startswith("spectral"):
        resolved.pop("polar", None)
    return Row(name, signal, memory, direction, motion, found.source, resolved)


def least_ndim(name: str, options: Options) -> int:
    """The dimensions that a parameter of this row has at least; 0: any shape."""
    return max(entry(name).least_ndim(options), WAYS[options["motion"]].least_ndim)
