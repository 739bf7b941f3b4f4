"""Does the lockstep gate of the fast tier catch wrong optimizers, and let the same one written differently pass?

    WRONG       a single mistake each                                     wrong_*
    REWRITES    the same mathematics in another order, precision or instruction              rewrites, rewritten_parts
    MUTANTS     both
    FOLDS       a single mistake each in what is made of microbatches                        folded
    examine     one of MUTANTS, update by update from the reference's own state
    tried       one of either table

A gate without this question proves nothing: a budget can be too wide, and a case can miss what it is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from dualopt.storage import rounded

from . import folded, rewrites, rewritten_parts, wrong_moves, wrong_spectra
from . import wrong_directions as directions
from . import wrong_motions as motions
from .alterations import Entry, Mutant
from .budgets import Allowed, allowed, judge
from .cases import CASES, LATE, chosen
from .digests import spoken
from .folded import FOLDS, WrongFold
from .mutation_table import Mutation
from .walk import Moment, moments, walk

FIRST = LATE + 1  # updates in which most mistakes show

_PARTS: Mapping[str, tuple[Entry, ...]] = {
    "signal": directions.SIGNAL,
    "memory": directions.MEMORY,
    "readout": directions.READOUT,
    "bias correction": directions.CORRECTION,
    "elementwise direction": directions.ELEMENTWISE,
    "norm ball": directions.BALLS,
    "counts": motions.COUNTS,
    "clock": motions.CLOCK,
    "schedule": motions.SCHEDULE,
    "shrink": motions.SHRINK,
    "motion": motions.MOTION,
    "pooling": motions.POOLING,
    "views": motions.VIEWS,
    "state": motions.STATE,
    "storage": motions.STORAGE,
    **wrong_spectra.PARTS,
    **wrong_moves.PARTS,
}


def _table(parts: Mapping[str, tuple[Entry, ...]], legitimate: bool) -> tuple[Mutant, ...]:
    return tuple(
        Mutant(name, part, what, step, tuple(globs.split()), legitimate)
        for part, entries in parts.items()
        for name, what, step, globs in entries
    )


WRONG = _table(_PARTS, legitimate=False)
REWRITES = _table({**rewrites.PARTS, **rewritten_parts.PARTS}, legitimate=True)
MUTANTS = WRONG + REWRITES


def examine(mutant: Mutant, updates: int | None = None) -> Mutation:
    """The first tensor that the gate rejects; if it rejects none, the one that comes nearest to its budget.

    Args:
        mutant: what is tried.
        updates: only the first ones of every case; None: all that lockstep has.

    Raises:
        ValueError: the mutant breaks down: a result is not finite, so what is caught is not its mistake.
    """
    nearest = Mutation(mutant.name, mutant.part, mutant.what, mutant.legitimate, False, "", "", 0.0, 0.0)
    for case in chosen(mutant.cases).values():
        step, compared = mutant.step(), 0
        for moment, permitted in reference(case.id):
            if updates is not None and moment.update > updates:
                break
            planned = moment.planned
            with np.errstate(under="ignore", over="ignore"):
                moved = step(planned, moment.theta, moment.state, moment.gradient, moment.proposal)
            for name, (theta, state) in moved.items():
                found = {**state, "": rounded(np.asarray(theta), case.dtype)}
                for key, bounds in permitted[name].items():
                    y = planned.seen(np, name, {key: np.asarray(found[key])})[key]
                    if not np.isfinite(y).all():
                        raise ValueError(f"{mutant.name}: {case.id} gives numbers that are not finite")
                    judged = judge(bounds, y)
                    compared += judged.compared
                    here = replace(nearest, case=case.id, tensor=spoken(f"{name}/{key}" if key else name))
                    if judged.failed:
                        return replace(here, caught=True, error=judged.error, budget=judged.error_budget)
                    if _share(judged.worst, judged.budget) >= _share(nearest.error, nearest.budget):
                        nearest = replace(here, error=judged.worst, budget=judged.budget)
        if not compared:
            raise ValueError(f"{mutant.name}: {case.id} compares nothing")
    return nearest


def _share(error: float, budget: float) -> float:
    return error / budget if budget else 0.0


Known = tuple[tuple[Moment, dict[str, dict[str, Allowed]]], ...]


@cache
def _known(case: str, soon: bool) -> Known:
    length = CASES[case].updates
    found = [m for m in walk(CASES[case], FIRST if soon else length) if m.update in moments(length)]
    found = [m for m in found if soon or m.update > FIRST]
    return tuple(zip(found, allowed(found, CASES[case].dtype), strict=True))


def reference(case: str) -> Iterator[tuple[Moment, dict[str, dict[str, Allowed]]]]:
    """The moments of a case and what is allowed after each, the later ones made only if they are asked for."""
    yield from _known(case, True)
    yield from _known(case, False)


def tried(one: Mutant | WrongFold) -> Mutation:
    """What became of it."""
    return folded.examine(one) if isinstance(one, WrongFold) else examine(one)


def every() -> tuple[Mutant | WrongFold, ...]:
    """Both tables."""
    return (*MUTANTS, *FOLDS)


def examine_all(show: Callable[[str, int, int], None] = lambda name, i, n: None) -> list[Mutation]:
    """Every mutant, in the order of the tables; `show` is told (name, index, number of mutants) before each."""
    return examined(every(), show)


def examined(
    picked: Sequence[Mutant | WrongFold], show: Callable[[str, int, int], None] = lambda name, i, n: None
) -> list[Mutation]:
    """The same of some."""
    results = []
    for i, mutant in enumerate(picked):
        show(mutant.name, i, len(picked))
        results.append(tried(mutant))
    return results
