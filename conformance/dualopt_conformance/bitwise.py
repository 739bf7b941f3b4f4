"""Checks of the exact tier: one update, a whole trajectory, and two records against each other, bit by bit.

A machine that flushes subnormal numbers to zero cannot have the bits of one that does not. In lockstep its loss
is derived, and what lies within it counts as flushed; free runs of situations made of such numbers are counted
and not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .bench import Array, Bench, Place, Tally, finding, pair_of, tensor_of
from .declared import directions
from .manifest import NotComparableError, Record
from .metric import bit_differences
from .pins import first_difference
from .verdict import Check, Finding


def lockstep(bench: Bench, record: Record) -> Tally:
    """The bits of one update. What a flushing machine may lose is derived like any other bound."""
    tally = Tally()
    for place in bench.lockstep_places():
        right = bench.known[place.of(bench.case, "after")]
        y = pair_of(record, "exact", place.of(bench.case, "lockstep"), right)
        differ = bit_differences(right, y)
        tally.compared += y.size
        if not differ.any():
            continue
        tally.differing += int(differ.sum())
        lost = np.zeros(y.shape, bool)
        if record.flushes and place in bench.allowed:
            one = bench.allowed[place]
            apart = np.abs(bench.seen(place, y).astype(np.float64) - bench.seen(place, right))
            lost = (apart <= one.flush - one.bound).reshape(y.shape) if apart.shape == one.bound.shape else lost
        tally.flushed += int((differ & lost).sum())
        bad = differ & ~lost
        if bad.any():
            tally.failed += int(bad.sum())
            found = finding(place, right, y, bad, right)
            tally.worst = max(tally.worst, found.error)
            tally.first = tally.first or found
    directions(bench, record, "exact", tally)
    return tally


def free(bench: Bench, record: Record, sides: tuple[str, str]) -> Check:
    """The bits of a whole trajectory, at the checkpoints, and its pinned digests."""
    case, tally = bench.case, Tally()
    excused = case.situation.subnormal and record.flushes
    for place in bench.free_places():
        right = bench.known[place.of(case, "after")]
        y = pair_of(record, "exact", place.of(case, "free"), right)
        differ = bit_differences(right, y)
        tally.compared += y.size
        tally.differing += int(differ.sum())
        if excused:
            tally.flushed += int(differ.sum())
        elif differ.any():
            tally.failed += int(differ.sum())
            tally.first = tally.first or finding(place, right, y, differ, right)
    digests = tensor_of(record, "exact", f"{case.id}/digests")
    odd = first_difference(case, digests) if len(digests) == case.updates else 0
    note = "" if odd is None else f"the digest of update {odd} is another than the pinned one"
    if odd is not None and not excused:
        tally.failed += 1
        tally.first = tally.first or Finding(odd, "digest", (), "", "", error=math.inf)
    return tally.check(case, "exact", "free", sides, note)


def together(bench: Bench, left: Record, right: Record) -> Iterator[Check]:
    """The checks of two records against each other: bits after every update, in the exact tier."""
    case, sides = bench.case, (left.label, right.label)
    ours, theirs = (tensor_of(r, "exact", f"{case.id}/digests") for r in (left, right))
    for record, digests in ((left, ours), (right, theirs)):
        if digests.shape != (case.updates,) or digests.dtype != np.uint64:
            raise NotComparableError(f"{record.label}: {case.id}/digests is {digests.dtype}{digests.shape}")
    parted = np.flatnonzero(ours != theirs)
    excused = case.situation.subnormal and (left.flushes or right.flushes)
    tally = _first_apart(bench, left, right, excused)
    note = f"digests of {case.updates} updates"
    if parted.size:
        note = f"{note}; the first that differs is that of update {int(parted[0]) + 1}"
        if not (excused or tally.failed):
            tally.failed = 1
            tally.first = Finding(int(parted[0]) + 1, "digest", (), "", "", error=math.inf)
    yield tally.check(case, "exact", "free", sides, note)


def _first_apart(bench: Bench, left: Record, right: Record, excused: bool) -> Tally:
    """All recorded elements of two records. `first` is in lockstep if it shows there, else at a checkpoint."""
    case, tally = bench.case, Tally()
    for experiment, places in (("lockstep", bench.lockstep_places()), ("free", bench.free_places())):
        for place in places:
            key = place.of(case, experiment)
            x = tensor_of(left, "exact", key)
            y = pair_of(right, "exact", key, x)
            differ = bit_differences(x, y)
            tally.compared += x.size
            if not differ.any():
                continue
            count = int(differ.sum())
            tally.differing += count
            tally.flushed += count if excused else 0
            tally.failed += 0 if excused else count
            tally.first = tally.first or _nearer(finding(place, x, y, differ, None), bench, place, left, right, x, y)
    return tally


def _nearer(
    found: Finding, bench: Bench, place: Place, left: Record, right: Record, x: Array, y: Array
) -> Finding:  # fmt: skip
    """The finding with the reference's value, where that is known, and the side that has its bits."""
    after = bench.known.get(place.of(bench.case, "after"))
    if after is None:
        return found
    at = found.index
    near = [record.label for record, z in ((left, x), (right, y)) if z[at].tobytes() == after[at].tobytes()]
    return replace(found, oracle=float(after[at]).hex(), nearer=near[0] if len(near) == 1 else "")
