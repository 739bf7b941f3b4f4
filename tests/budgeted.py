"""What a backend makes of one update after another of the reference, judged by the derived budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from dualopt.namespace import Backend
from dualopt_conformance import budgets, folded
from dualopt_conformance.cases import EVERY, Case
from dualopt_conformance.experiments import step_of
from dualopt_conformance.judgement import Allowed, Judgement, judge
from dualopt_conformance.walk import Moment, driven, walk

Judged = Iterator[tuple[str, Judgement]]


def limits(case: Case, m: Moment) -> Mapping[str, Mapping[str, Allowed]]:
    """What one update of a case may give, {name: {key: ...}} with "" for θ."""
    if case.streams:
        return folded.allowed(case, m)
    (found,) = budgets.allowed([m], case.dtype)
    return found


def lockstep(name: str, backend: Backend, updates: int, tier: str = "fast") -> Judged:
    """Every tensor after each of the first updates of a case, on a backend from the states of the reference."""
    case = EVERY[name]
    for m in driven(case, "numpy", "exact", updates) if case.streams else walk(case, updates):
        allowed = limits(case, m)
        for tensor, found in _streamed(case, m, backend, tier) if case.streams else _stepped(case, m, backend, tier):
            for key, y in found.items():
                yield f"{m.update}/{tensor}/{key}", judge(allowed[tensor][key], y)


def _stepped(case: Case, m: Moment, backend: Backend, tier: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    moved = step_of(backend, tier, case.dtype)(m.planned, m.theta, m.state, m.gradient, m.proposal)
    for name, (x, s) in moved.items():
        if x.size:
            yield name, {"": m.planned.views[name].apply(np, x), **m.planned.seen(np, name, dict(s))}


def _streamed(case: Case, m: Moment, backend: Backend, tier: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    xp = backend.namespace(tier)
    with np.errstate(all="ignore"):
        for name, found in folded.updated(xp, case, m, m.planned.row, lambda x: backend.from_numpy(x, "float32")):
            yield name, {key: backend.to_numpy(y) for key, y in found.items()}


def assert_within(judged: Judged) -> None:
    """Nothing is outside, and most of it was judged."""
    found = list(judged)
    assert not [place for place, j in found if j.failed]
    assert sum(j.compared for _, j in found) > 10 * sum(j.unjudged for _, j in found)
