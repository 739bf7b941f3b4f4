"""The gate of the fast tier: one update from the reference's state, within the bound derived for its arithmetic."""

from __future__ import annotations

from .bench import Array, Bench, Place, Tally, finding, hexadecimal, pair_of
from .budgets import Allowed, Judgement, judge
from .declared import directions
from .digests import spoken
from .manifest import Record
from .metric import bit_differences
from .verdict import Finding


def lockstep(bench: Bench, record: Record) -> Tally:
    """What one update gave against what it may give; a parameter without gradient keeps its bits."""
    tally = Tally()
    moved: set[Place] = set()
    for place, one in bench.allowed.items():
        stored = bench.known[place.of(bench.case, "after")]
        y = pair_of(record, "fast", place.of(bench.case, "lockstep"), stored)
        moved.add(place)
        if y.size == 0:
            continue
        found = judge(one, bench.seen(place, y))
        _add(tally, found)
        tally.differing += int(bit_differences(stored, y).sum())
        if found.failed and tally.first is None:
            tally.first = _outside(place, one, found, bench.seen(place, stored), bench.seen(place, y))
    for place in bench.lockstep_places():
        if place not in moved:
            right = bench.known[place.of(bench.case, "after")]
            y = pair_of(record, "fast", place.of(bench.case, "lockstep"), right)
            differ = bit_differences(right, y)
            tally.compared += y.size
            if differ.any():
                tally.failed += int(differ.sum())
                tally.first = tally.first or finding(place, right, y, differ, right)
    directions(bench, record, "fast", tally)
    return tally


def _add(tally: Tally, found: Judgement) -> None:
    tally.compared += found.compared
    tally.failed += found.failed
    tally.flushed += found.flushed
    tally.ties += found.ties
    tally.unjudged += found.unjudged
    tally.derived = max(tally.derived, found.derived)
    if found.worst >= tally.worst:
        tally.worst, tally.budget = found.worst, max(found.budget, tally.budget if found.worst == tally.worst else 0.0)


def _outside(place: Place, one: Allowed, found: Judgement, reference: Array, y: Array) -> Finding:
    index = found.index or ()
    left, right, oracle = (hexadecimal(x[index]) for x in (reference, y, one.value))
    error, budget = found.error, found.error_budget
    return Finding(place.update, spoken(place.tensor), index, left, right, oracle, error, budget, "the reference")
