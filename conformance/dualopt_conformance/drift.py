"""Free runs of the fast tier: how far they drift from the reference, and whether they are worse than float32 must be.

    E_t <= 4 B √t + B            against the reference
    E <= (1 + 4/√n) E_0 + 1      root mean squares over all elements of θ, against a float64 run with the same rounded
                                 coefficients; E_0 the larger one of the reference and of a nudged run (see `nudged`)

B is the largest derived bound of the tensor in lockstep. Rounding errors of single updates are independent
and of either sign, so their sum grows like √t; 4 leaves one false alarm in about 10^3 to an element whose
every error were as large as B, and real ones are a small part of it. n is the number of errors that E_0 comes
from (`worse`). Where rounding decides the trajectory by itself, as the nudged run tells, the oracle has no say in it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .bench import Array, Bench, Place, Tally, finding, pair_of
from .cases import Case
from .folded import FOLLOWED
from .manifest import Record
from .metric import bit_differences, scaled_ulp, ulp
from .undecided import judged_freely
from .verdict import SHOWN, Check
from .walk import checkpoints

WORSE = 1.25  # the least factor: errors are never quite independent
OFF = ("exactly", "nudged")  # how far other float64 runs are from the oracle


class Scales:
    """The running magnitude of every tensor: the largest that each element has been at a checkpoint, or has been
    computed from in lockstep so far. Where terms cancel, a budget is in units of these and not of what is left."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._largest: dict[str, Array] = {}
        self._ahead = sorted(bench.allowed, key=lambda place: place.update)

    def update(self, tensor: str, t: int, x: Array) -> Array:
        """The magnitude with x of update t taken in."""
        while self._ahead and self._ahead[0].update <= t:
            self._join(self._ahead[0].tensor, self._made_from(self._ahead.pop(0)))
        self._join(tensor, np.abs(x))
        return self._largest[tensor]

    def _join(self, tensor: str, size: Array) -> None:
        self._largest[tensor] = np.maximum(self._largest.get(tensor, size), size)

    def _made_from(self, place: Place) -> Array:
        """s of lockstep, as the tensor is stored."""
        name, _, key = place.tensor.partition("/")
        s = self._bench.allowed[place].scale
        return np.asarray(self._bench.planned.stored(np, name, {key: s})[key]) if s.size else s


def free(bench: Bench, record: Record, sides: tuple[str, str]) -> Check:
    """Drift from the reference along the trajectory, in units of the running magnitude."""
    case, tally, largest = bench.case, Tally(), Scales(bench)
    excused = case.situation.subnormal and record.flushes
    budgets = {tensor: bench.budget(tensor) for tensor in bench.tensors}
    idle = {tensor: bench.unjudged(tensor) for tensor in bench.tensors}
    tally.derived = max(budgets.values(), default=0.0)
    for t in checkpoints(case.updates):
        drift, envelope = 0.0, 0.0
        for tensor in bench.tensors:
            place = Place(t, tensor)
            right = bench.known[place.of(case, "after")]
            y = pair_of(record, "fast", place.of(case, "free"), right)
            if right.size == 0:
                continue
            if idle[tensor]:
                tally.unjudged += y.size
                continue
            scale = largest.update(tensor, t, right)
            apart, ties = _drift(bench, tensor, t, right, y, scale)
            most = 4 * budgets[tensor] * math.sqrt(t) + budgets[tensor]
            beyond = apart > most
            tally.compared += y.size
            tally.ties += ties
            tally.differing += int(bit_differences(right, y).sum())
            if float(apart.max()) > drift:
                drift, envelope = float(apart.max()), most
            envelope = envelope or most
            if beyond.any():
                tally.flushed += int(beyond.sum()) if excused else 0
                tally.failed += 0 if excused else int(beyond.sum())
                index = tuple(int(i) for i in np.unravel_index(int(np.argmax(apart)), apart.shape))
                tally.first = tally.first or replace(
                    finding(place, right, y, apart == apart.max(), right), index=index, error=drift, budget=most
                )
        tally.curve.append((t, drift))
        tally.envelope.append((t, envelope))
        if drift >= tally.worst:
            tally.worst, tally.budget = drift, envelope
    found = tally.check(case, "fast", "free", sides)
    if judged_freely(case):
        return found
    return replace(found, status=SHOWN, first=None, note=f"{_why(case)}: not judged")


def _why(case: Case) -> str:
    """Why a free run is not judged."""
    if not case.streams:
        return "masks of matrix directions turn under rounding"
    if case.id not in FOLLOWED:
        return "no bound is derived for single eigenvectors of factors, which microbatches are measured along"
    return "what is folded has bounds in single updates alone, and these are not recorded"


def _drift(bench: Bench, tensor: str, t: int, right: Array, y: Array, scale: Array) -> tuple[Array, int]:
    """(E of every element, ties left out). What is measured by norm has one E for all."""
    dtype = "float32" if "/" in tensor else bench.case.dtype
    if bench.by_norm(tensor):
        length = float(np.linalg.norm(scale.astype(np.float64)))
        apart = float(np.linalg.norm(y.astype(np.float64) - right))
        apart = apart if math.isfinite(apart) else math.inf
        return np.full(y.shape, apart / (_unit(dtype) * length) if length else apart), 0
    error = scaled_ulp(right, y, scale, dtype)
    ties = bench.undecided(tensor, t)
    if ties is None:
        return error, 0
    return np.where(ties, 0.0, error), int(ties.sum())


def _unit(dtype: str) -> float:
    """u of the normwise unit: half a spacing at 1."""
    return float(ulp(1.0, dtype)) / 2


def oracle(bench: Bench, record: Record, tier: str, sides: tuple[str, str]) -> Check:
    """θ against float64 with the same rounded coefficients: is this side worse than float32 has to be?"""
    case, tally, largest = bench.case, Tally(), Scales(bench)
    discretised, since = 0.0, 0
    for t in checkpoints(case.updates):
        squares = {side: [np.zeros(0)] for side in ("record", "reference", "nudged")}
        worst, suspect, compared, undecided = 0.0, None, 0, 0
        for tensor, shape in case.shapes.items():
            right = bench.known.get(f"{case.id}/oracle/{t}/{tensor}")
            if right is None or 0 in shape:
                continue
            plain = bench.known[f"{case.id}/after/{t}/{tensor}"]
            y = pair_of(record, tier, f"{case.id}/free/{t}/{tensor}", plain)
            exactly, nudged = (right + bench.expected(f"{case.id}/{key}/{t}/{tensor}", right) for key in OFF)
            scale = largest.update(tensor, t, right)
            given = {"record": y, "reference": plain, "nudged": nudged}
            apart = {side: _drift(bench, tensor, t, right, x, scale) for side, x in given.items()}
            for side, (e, _) in apart.items():
                each = (e * e).ravel()
                squares[side].append(each.sum(keepdims=True) if bench.by_norm(tensor) else each)
            discretised = max(discretised, float(_drift(bench, tensor, t, right, exactly, scale)[0].max()))
            yours, ties = apart["record"]
            compared += y.size
            undecided += ties
            if float(yours.max()) >= worst:
                worst = float(yours.max())
                suspect = finding(Place(t, tensor), plain, y, yours == worst, right)
        if suspect is None:
            continue
        joined = {side: np.concatenate(e) for side, e in squares.items()}
        size, plain_size, nudged_size = (math.sqrt(e.sum() / compared) for e in joined.values())
        if since or not nudged_size <= 4 * math.sqrt(t) + 1:
            since = since or t
            continue
        tally.compared += compared
        tally.ties += undecided
        most = max(worse(joined["reference"]) * plain_size, worse(joined["nudged"]) * nudged_size) + 1
        if size >= tally.worst:
            tally.worst, tally.budget, tally.derived = size, most, plain_size
        if not size <= most:
            tally.failed += 1
            tally.first = tally.first or replace(suspect, error=worst, budget=most, nearer="the reference")
    note = f"root mean squares; rounding the coefficients alone moves an element by up to {discretised:.3g}"
    if since:
        note = f"{note}; from update {since} on rounding decides the trajectory, in float64 too: not judged"
    judged = judged_freely(case) and not case.row.motion.pools  # one η for all: their errors are one error
    found = tally.check(case, tier, "oracle", sides, note)
    return found if judged and (tally.compared or not since) else replace(found, status=SHOWN, first=None)


def worse(squares: Array) -> float:
    """By what factor another root mean square of errors may be larger, from the squares of independent ones.

    Of n it is known to one part in √(2n), and the quotient of two to one in √n. Where few are much larger than all
    others, these few are what it is made of: n = (Σ e²)² / Σ e⁴. A matrix that is measured by norm has one error.
    """
    total = float(squares.sum())
    few = total * total / float((squares * squares).sum()) if total else float(max(squares.size, 1))
    return max(WORSE, 1 + 4 / math.sqrt(few))
