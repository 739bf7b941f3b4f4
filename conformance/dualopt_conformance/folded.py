"""Updates of several microbatches: what they may give, and wrong folds that this has to catch.

A fold is made of the same operations as the recursion, so `Bounds` follows it: the bound is that of the evidence and
of the update made from it, parameter by parameter.

Not followed, and compared bit by bit alone, is `shampoo` with inv and full. There every eigenvalue of a factor loses by
the variance of ‖G_jᵀ q‖² over the microbatches, q its own eigenvector. That is no function of the factor: q turns by
‖E‖/gap, and where a gap is within ‖E‖, as it is for factors of G Gᵀ without full rank, by any angle. A bound
has to hold for all q of such a plane, and none is derived. Drawn errors of that size moved a root by up to 4 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dualopt.estimators.adam import Corrected, Cross, Full, Inverse, LeaveOneOut, PreCorrected, Reading, Symmetric
from dualopt.estimators.shampoo import Factored
from dualopt.estimators.sophia import Clipped, Curvature
from dualopt.fold import Fold, Mean, group, mean, standard_error
from dualopt.recursion import Array, Arrays, Namespace, Row, Scalars, step

from .alterations import EXACT, RowChange, rewired
from .arithmetic import FLUSHING, NATIVE
from .bounds import Bounds
from .budgets import Allowed, of_forms
from .cases import STREAMS, Case
from .digests import spoken
from .followed import bounding
from .forms import FORMS
from .judgement import Judgement, judge
from .mutation_table import Mutation
from .walk import Moment, driven

PART = "microbatches"  # of the recursion, in tables
_XP = Bounds((NATIVE, FLUSHING, NATIVE, NATIVE, NATIVE))


def evidence(xp: Namespace, fold: Fold, zero: Array, grads: list[Array], state: Arrays, k: Scalars) -> Arrays:
    """What a fold makes of the microbatches of one parameter, as the row sees them."""
    acc = fold.start(xp, zero)
    for j, g in enumerate(grads):
        acc = fold.add(xp, acc, g, state, k, j)
    if fold.passes > 1:
        acc = fold.turn(xp, acc, state, k, len(grads))
        for j, g in enumerate(grads):
            acc = fold.again(xp, acc, g, state, k, j, len(grads))
    return fold.done(xp, acc, state, k, len(grads))


def updated(
    xp: Namespace, case: Case, m: Moment, row: Row, array: Callable[[Array], Any] = lambda x: x
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, {key: array as the row sees it, "" for θ}) of every parameter, in the namespace."""
    trees: Any = case.microbatches(m.update)
    streams = {"gradient": trees, "samples": case.sampled(m.update) or []}
    for name in m.gradient:
        view, k = m.planned.views[name], m.proposal.scalars[name]
        if not view.size:
            continue
        theta = array(view.apply(np, m.theta[name]))
        state = {key: array(x) for key, x in m.planned.seen(np, name, dict(m.state[name])).items()}
        found: Arrays = {}
        for stream, fold in row.folds.items():
            grads = [array(view.apply(np, tree[name])) for tree in streams[stream]]
            if grads:
                found |= evidence(xp, fold, xp.zeros_like(theta), grads, state, k)
        moved, s = step(xp, row, theta, state, found, k)
        yield name, {**s, "": moved}


def allowed(case: Case, m: Moment) -> dict[str, dict[str, Allowed]]:
    """What one update of a case with microbatches may give, by parameter and key."""
    with np.errstate(all="ignore"):
        made = [dict(updated(_XP, case, m, bounding(form(m.planned.row)), _XP.array)) for form in FORMS.values()]
    found: dict[str, dict[str, Allowed]] = {}
    with np.errstate(all="ignore"):
        for name, keys in made[0].items():
            view = m.planned.views[name]
            before = {"": view.apply(np, m.theta[name]), **m.planned.seen(np, name, dict(m.state[name]))}
            found[name] = {
                key: of_forms([_XP.stored(one[name][key]) for one in made], before[key], lambda x, leading=0: [x])[0]
                for key in keys
            }
    return found


@dataclass(frozen=True)
class WrongFold:
    """A mistake in what is made of microbatches; `change` makes it in a row."""

    name: str
    what: str
    change: RowChange
    case: str


def examined(change: RowChange, case: Case, updates: int = 6) -> Iterator[tuple[str, Judgement]]:
    """Every tensor of the first updates, by a row whose parts and folds were changed, judged."""
    for m in driven(case, "numpy", "exact", updates):
        changed: Any = change
        limits, row = allowed(case, m), change(m.planned.row)
        row = replace(row, folds={stream: changed(fold) for stream, fold in row.folds.items()})
        with np.errstate(all="ignore"):
            for name, keys in updated(EXACT, case, m, row):
                for key, y in keys.items():
                    yield f"{m.update}/{name}/{key}", judge(limits[name][key], np.asarray(y, np.float32))


def examine(wrong: WrongFold) -> Mutation:
    """The first tensor that is outside its bounds; if none is, the one that comes nearest to its budget."""
    nearest = Mutation(wrong.name, PART, wrong.what, False, False, wrong.case, "", 0.0, 0.0)
    for place, judged in examined(wrong.change, STREAMS[wrong.case]):
        here = replace(nearest, tensor=spoken(place.partition("/")[2].rstrip("/")))
        if judged.failed:
            return replace(here, caught=True, error=judged.error, budget=judged.error_budget)
        if judged.worst * nearest.budget >= nearest.error * judged.budget:
            nearest = replace(here, error=judged.worst, budget=judged.budget)
    return nearest


# ---- mistakes


def _all_together(self: Cross, xp: Any, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
    return {"gradient": mean(acc["gradient"], g, j), "square": mean(acc["square"], g * g, j)}


def _exchanged(self: Cross, xp: Any, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
    which, i = group(j)
    if which == "b":
        return {**acc, "gradient": mean(acc["gradient"], g, i)}
    return {**acc, "square": mean(acc["square"], g * g, i)}


def _of_one(self: Inverse, xp: Any, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
    return {"gradient": acc["gradient"], "error": acc["error"]}


def _of_all(self: Full, xp: Any, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
    return {**Full.done(self, xp, acc, state, k, count), "error": standard_error(acc["error"], count)}


def _three_quarters(self: PreCorrected, xp: Any, s: Arrays, g: Arrays, k: Scalars) -> Array:
    return 5 / 3 * PreCorrected.lost(self, xp, s, g, k)


def _one_half(self: Symmetric, xp: Any, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
    return Symmetric.done(self, xp, {**acc, "mean_b": acc["mean_a"]}, state, k, count)


def _not_left_out(self: LeaveOneOut, xp: Any, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int, n: int) -> Any:
    own = LeaveOneOut.again(self, xp, acc, acc["gradient"], state, k, j, n)
    d = self.root(xp, acc["gradient"] * acc["gradient"], state, k) + k["eps"]
    return {**own, "u1": mean(acc["u1"], self.numerator(xp, g, state, k) / d, j)}


def _biased(self: LeaveOneOut, xp: Any, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
    return LeaveOneOut.done(self, xp, {**acc, "spread": (1 - 1 / count) ** 0.5 * acc["spread"]}, state, k, count)


def _last(self: Mean, xp: Any, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
    return {self.name: g}


def _running(self: Mean, xp: Any, acc: Arrays, g: Array, state: Arrays, k: Scalars, j: int) -> Arrays:
    return {self.name: 0.5 * acc[self.name] + 0.5 * g}


def _squared_mean(self: Curvature, xp: Any, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
    found = Curvature.done(self, xp, acc, state, k, count)
    return {**found, "square": found["gradient"] * found["gradient"]}


def _uncorrected(self: Clipped, xp: Any, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
    plain = {key: x for key, x in s.items() if key != "lost"}
    return Clipped.__call__(self, xp, plain, {key: x for key, x in g.items() if key != "error"}, k)


def _factors_of_mean(self: Factored, xp: Any, acc: Arrays, state: Arrays, k: Scalars, count: int) -> Arrays:
    g = acc["gradient"]
    gt = xp.matrix_transpose(g)
    return {"gradient": g, "left": xp.matmul(g, gt), "right": xp.matmul(gt, g)}


FOLDS: tuple[WrongFold, ...] = (
    WrongFold("last microbatch", "instead of the mean", rewired(Mean, add=_last), "lion.accumulated/usual"),
    WrongFold("half of what was", "a running mean with weights", rewired(Mean, add=_running), "lion.accumulated/usual"),
    WrongFold("no cross-fitting", "both memories see all", rewired(Cross, add=_all_together), "adamw.cf/usual"),
    WrongFold("halves exchanged", "squares of A", rewired(Cross, add=_exchanged), "adamw.cf/usual"),
    WrongFold("variance of one", "not of the mean", rewired(Inverse, done=_of_one), "adamw.inv/usual"),
    WrongFold(
        "variance ignored", "u is not corrected", rewired(Corrected, __call__=Reading.__call__), "adamw.inv/usual"
    ),
    WrongFold("variance over all", "m for m_B", rewired(Full, done=_of_all), "adamw.full/usual"),
    WrongFold("3/4 for 1/4", "as published", rewired(PreCorrected, lost=_three_quarters), "adamw.pre_ema/usual"),
    WrongFold("one half twice", "m_A over both", rewired(Symmetric, done=_one_half), "adamw.sym/usual"),
    WrongFold("nothing left out", "all p of ḡ", rewired(LeaveOneOut, again=_not_left_out), "adamw.loo/usual"),
    WrongFold("biased variance", "m for m − 1", rewired(LeaveOneOut, done=_biased), "adamw.loo_jensen/usual"),
    WrongFold(
        "square of the mean", "for the mean of squares", rewired(Curvature, done=_squared_mean), "sophia.cf/usual"
    ),
    WrongFold("curvature certain", "u is not corrected", rewired(Clipped, __call__=_uncorrected), "sophia.inv/usual"),
    WrongFold(
        "sampled certain",
        "what was taken off is lost",
        rewired(Clipped, __call__=_uncorrected),
        "sophia.inv_samples/usual",
    ),
    WrongFold("factors of the mean", "ḡ ḡᵀ", rewired(Factored, done=_factors_of_mean), "shampoo.cf/usual"),
)
FOLLOWED: Mapping[str, Case] = {
    name: case
    for name, case in STREAMS.items()
    if not (case.table["optimizer"] == "shampoo" and case.table.get("estimator") in ("inv", "full"))
}
