"""`dualopt list`: what there is to put into a recipe, and what means nothing together."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from ..catalog import ENTRIES, FAMILIES, account, meaning
from ..catalog.entry import Entry
from ..catalog.ways import WAYS
from ..coordinates import COORDINATES
from ..errors import RecipeError, nearest
from ..plaintext import listing
from .output import emit, lines, say
from .training import Json


def catalogue(
    pattern: Annotated[str, typer.Argument(help="Only rows whose name matches, e.g. 'scion*'.")] = "*",
    motion: Annotated[str | None, typer.Option(help="Only rows that this motion takes.", show_default=False)] = None,
    family: Annotated[
        str | None, typer.Option(help=f"Only this family: {', '.join(FAMILIES)}.", show_default=False)
    ] = None,
    uses: Annotated[
        list[str] | None, typer.Option(help="Only rows that use this coordinate; repeatable.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the optimizers; of one alone all coordinates with their defaults, and what means nothing with it."""
    found = _chosen(pattern, motion, family, uses or [])
    if as_json:
        emit([account.described(entry, motion) for entry in found])
    elif len(found) == 1:
        _details(found[0], motion or found[0].motion)
    else:
        _table(found)


def _chosen(pattern: str, motion: str | None, family: str | None, uses: list[str]) -> list[Entry]:
    """The rows that pass all filters. RecipeError for a filter that names nothing, or if none passes."""
    _known("motion", motion, WAYS)
    _known("family", family, FAMILIES)
    for key in uses:
        _known("coordinate", key, COORDINATES)
    found = [
        entry
        for entry in ENTRIES.values()
        if fnmatchcase(entry.name, pattern)
        and (family is None or entry in FAMILIES[family])
        and (motion is None or meaning.not_taken(entry, entry.under(motion)) is None)
        and all(key in entry.under(motion or entry.motion) for key in uses)
    ]
    if not found:
        raise RecipeError(f"no optimizer called {pattern!r} passes the filters{nearest(pattern, ENTRIES)}")
    return found


def _known(what: str, name: str | None, known: Mapping[str, Any]) -> None:
    """RecipeError for a name that is given and unknown."""
    if name is not None and name not in known:
        raise RecipeError(f"{name!r} is no {what}; known are {', '.join(known)}{nearest(name, known)}")


def _table(found: list[Entry]) -> None:
    """One row of a table for each; texts wrap in their columns."""
    whole = [(e.name, f"{e.summary}; ours: {e.ours}" if e.ours else e.summary, e.source, e.motion) for e in found]
    lines(("name", "what it does", "source", "motion"), whole)
    say("Motions, for every row that they take:", style="bold")
    for way in WAYS.values():
        say(f"{way.name}: {way.summary}", indent=2, hanging=2)
    say("`dualopt list NAME` shows the coordinates of one, and what means nothing with it.")


def _details(entry: Entry, motion: str) -> None:
    """One row: where it is from, its coordinates under a motion, and what means nothing with it."""
    say(f"{entry.name}: {entry.summary}", style="bold", hanging=4)
    origin = f"Source: {entry.source}. Family: {account.family(entry)}. Published with motion = {entry.motion!r}."
    say(origin, hanging=4)
    if entry.ours:
        say(f"Ours: {entry.ours}.", hanging=4)
    rows = [
        (told.name, told.default, ": ".join((told.meaning, *([", ".join(told.choices)] if told.choices else []))))
        for told in account.coordinates(entry, motion)
    ]
    say(f"\nCoordinates with motion = {motion!r}", style="bold")
    lines(("coordinate", "default", "meaning"), rows)
    say(account.HALF_LIVES)
    others = [name for name in account.motions(entry) if name != motion]
    if others:
        say(f"It also takes {listing(f'motion = {name!r}' for name in others)}.")
    nothing = meaning.of(entry)
    if nothing:
        say("Without meaning", style="bold")
        for one in nothing:
            say(f"{one.what}: {one.why}", indent=2, hanging=2)
