"""Every named optimizer as one row: signal + memory + direction + motion, defaults, source.

The tables are in the files beside this one, a family each, and the motions in `ways`. Default half-lives are in
updates; a recipe multiplies them by its `per_update`. A coordinate whose default is None is optional. `step`
defaults are those of the sources.
"""

from __future__ import annotations

from dataclasses import replace

from ..coordinates import COORDINATES, Value, hint
from ..directions.polar import EXACT, PRESETS
from ..errors import RecipeError, nearest
from ..memory import Memories
from ..recursion import Row
from .averaging import AVERAGING
from .elementwise import ELEMENTWISE
from .entry import Entry, Options
from .estimated import ESTIMATED
from .meaning import INSTEAD, broken, not_taken
from .rotations import ROTATIONS
from .schatten import SCHATTEN
from .spectral import SPECTRAL
from .spheres import SPHERES
from .symmetric import SYMMETRIC
from .ways import WAYS

FAMILIES: dict[str, tuple[Entry, ...]] = {
    "elementwise": ELEMENTWISE,
    "spectral": SPECTRAL,
    "schatten": SCHATTEN,
    "averaging": AVERAGING,
    "symmetric": SYMMETRIC,
    "rotations": ROTATIONS,
    "spheres": SPHERES,
    "estimated": ESTIMATED,
}
ENTRIES: dict[str, Entry] = {e.name: e for family in FAMILIES.values() for e in family}


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
    way, uses = WAYS[str(motion)], found.under(str(motion))
    checked: dict[str, Value] = {}
    for key, value in stated.items():
        if key not in COORDINATES:
            raise RecipeError(f"{where}: unknown key {key!r}{hint(key, COORDINATES)}")
        if key not in uses:
            moving = "" if motion == found.motion else f" with motion = {motion!r}"
            why = f" ({way.without[key]})" if key in way.without else ""
            raise RecipeError(f"{where}: {name}{moving} does not use {key!r}{why}; it uses {', '.join(uses)}")
        checked[key] = COORDINATES[key].check(value, where)
        if key in found.only and checked[key] not in found.only[key]:
            raise RecipeError(
                f"{where}: {key} = {value!r}: it is not for {name}, which has {', '.join(found.only[key])}"
            )
    full = {**uses, **checked}
    for rule in broken(found, full, checked):
        raise RecipeError(f"{where}: {rule.says.format_map(full)}")
    if (why_not := not_taken(found, full)) is not None:
        raise RecipeError(f"{where}: motion = {motion!r} does not take {name}: {why_not}")
    return checked


def complete(
    name: str, stated: Options, *, per_update: float = 1.0, unit: float = 1.0, exact_polar: bool = False
) -> dict[str, Value]:
    """All coordinates of a row in the base unit: stated half-lives times `unit`, default ones times `per_update`.

    `exact_polar` is the float64 rule: a polar method that is not stated is the exact polar factor. A preset of `polar`
    is replaced by the coordinates that it stands for.
    """
    full: dict[str, Value] = {}
    found = entry(name)
    for key, default in found.under(str(stated.get("motion", found.motion))).items():
        value, factor = (stated[key], unit) if key in stated else (default, per_update)
        if value is None or any(key in INSTEAD.get(other, ()) for other in stated):
            continue
        if key == "polar" and key not in stated and exact_polar:
            value = EXACT
        full[key] = float(value) * factor if COORDINATES[key].kind == "half-life" else value
    return _expanded(full, stated)


def _expanded(full: dict[str, Value], stated: Options) -> dict[str, Value]:
    """The coordinates with a preset of `polar` replaced by what it stands for, except what is stated."""
    if full.get("polar") not in PRESETS or not str(full.get("norm", "spectral")).startswith("spectral"):
        return full
    preset = PRESETS[str(full["polar"])]
    return full | {key: value for key, value in preset.items() if key == "polar" or key not in stated}


def row(name: str, options: Options) -> Row:
    """The row called `name` with its structural choices taken from `options` (as from `complete`)."""
    found = entry(name)
    signal, memory, direction = found.parts(options)
    way = WAYS[options["motion"]]
    if way.signal is not None and isinstance(memory, Memories):
        signal, memory = way.signal, replace(memory, channels=way.signal.channels)
    motion = way.build(options, signal, memory, direction)
    resolved = {key: str(value) for key, value in options.items() if COORDINATES[key].decides}
    if not str(resolved.get("norm", "spectral")).startswith("spectral"):
        resolved.pop("polar", None)
    return Row(
        name,
        signal,
        memory,
        direction,
        motion,
        source=found.source,
        resolved=resolved,
        folds=found.folds(options),
    )


def moves_matrices(options: Options) -> bool:
    """True if it is the motion that needs matrices, whatever the row."""
    return WAYS[options["motion"]].least_ndim > 1


def least_ndim(name: str, options: Options) -> int:
    """The dimensions that a parameter of this row has at least; 0: any shape."""
    return max(entry(name).least_ndim(options), WAYS[options["motion"]].least_ndim)
