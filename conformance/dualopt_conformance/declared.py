"""Checks of u, the direction of single updates: its bits in the exact tier, and in both what it declares."""

from __future__ import annotations

import numpy as np

from .bench import Bench, Place, Tally, finding, pair_of
from .cases import Case
from .heading import declares, departed, marks
from .manifest import Record
from .metric import bit_differences
from .verdict import Finding


def directions(bench: Bench, record: Record, tier: str, tally: Tally) -> None:
    """Every recorded u, into a tally of lockstep.

    The first finding is the first in the order of an update, in which u comes between state and θ.
    """
    case = bench.case
    if not declares(case):
        return
    for m in bench.moments:
        for name in m.gradient if m.update in marks(case.updates) else ():
            place = Place(m.update, f"{name}/u")
            key = f"{case.id}/direction/{m.update}/{name}"
            if not m.theta[name].size:
                continue
            right = bench.expected(key, m.theta[name])
            y = pair_of(record, tier, key, right)
            view = m.planned.views[name]
            differ = bit_differences(right, y)
            off = np.asarray(view.undo(np, departed(m, name, view.apply(np, y))))
            bad = off | differ if tier == "exact" and not record.flushes else off
            tally.compared += y.size
            tally.differing += int(differ.sum())
            tally.failed += int(bad.sum())
            if bad.any() and not _before(tally.first, m.update, name, case):
                tally.first = finding(place, right, y, bad, right)


def _before(found: Finding | None, update: int, name: str, case: Case) -> bool:
    """True if something was found that an update computes before u of this parameter."""
    if found is None:
        return False
    order = list(case.shapes)
    key, _, of = found.tensor.rpartition(" of ")
    at = found.update, order.index(of), 0 if key else 1
    return at <= (update, order.index(name), 0)
