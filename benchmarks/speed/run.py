"""All of it: cases carried out, the record kept as it grows, tables, pictures and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from dualopt.errors import RecipeError

from .cases import CASES, Case
from .page import page
from .picture import pictures
from .record import Record
from .surroundings import described
from .tables import goals, of, scaling
from .terminal import progress, show
from .turns import carried_out, processes, usual_jobs


def chosen(only: Sequence[str], **other: float | None) -> list[Case]:
    """The cases whose names match a glob of `only`, all for none. `other`: fields of `Turns`; None leaves one as it is.

    Raises: RecipeError if a glob matches nothing.
    """
    globs = list(only) or ["*"]
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in CASES):
            raise RecipeError(f"no case is called {glob!r}; there are {', '.join(CASES)}")
    found = [case for name, case in CASES.items() if any(fnmatchcase(name, glob) for glob in globs)]
    return [_with(case, {key: value for key, value in other.items() if value is not None}) for case in found]


def _with(case: Case, stated: Mapping[str, float]) -> Case:
    if not case.turns.rounds:  # nothing to time but the start
        stated = {key: value for key, value in stated.items() if key != "rounds"}
    return replace(case, turns=replace(case.turns, **stated))


def measured(
    cases: Sequence[Case],
    *,
    checkout: Path,
    python: str,
    kept: Path,
    before: Record | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> Record:
    """The record of these cases and of those of `before` that are not among them, written to `kept` after each."""
    record, places = Record(described(checkout, python)), {name: i for i, name in enumerate(CASES)}
    whole = record.beside(before)  # or an error, and nothing has been timed
    with progress(len(cases), quiet=quiet) as tick, processes(checkout, python) as opened:
        for i, case in enumerate(cases):
            tick(i, case.name)
            side = carried_out(
                case, opened, jobs or usual_jobs(), lambda note, i=i, case=case: tick(i, f"{case.name}, {note}")
            )
            record.cases.append(side)
            whole = record.beside(before)
            whole.cases.sort(key=lambda side: places.get(side.name, len(places)))
            whole.save(kept)
            if not quiet and side.kind != "polar":
                show(of(side))
    return whole


def shown(record: Record) -> None:
    """What concerns several cases, and the wide tables, at the end."""
    for table in (scaling(record), goals(record)):
        if table is not None:
            show(table)


def written(record: Record, where: Path) -> list[Path]:
    """The page `where`, and in a directory of its name the pictures and a brief record."""
    beside = where.with_suffix("")
    drawn = pictures(record, beside)
    brief = beside / "record.json"
    record.brief().save(brief)
    where.write_text(page(record, drawn, where.parent), encoding="utf-8")
    return [where, *drawn, brief]
