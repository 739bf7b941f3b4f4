"""What is recorded of a case: named arrays, made by the reference or by one backend in one tier.

    start/T       θ and state before update T of the reference        (T of `walk.moments`)
    after/T       the same after it, and at the checkpoints
    oracle/T      θ of a float64 run with coefficients rounded to float32
    exactly/T     how far another one with exact coefficients is from it
    nudged/T      and one that is off in every update by as much as float32 may be (see `nudged`)
    undecided     per element of θ: the first update in which rounding could turn a sign or a mask; 0 for never
    lockstep/T    θ and state after one update of the backend from start/T
    direction/T   u of that update, of some rows, at a few T (see `heading`)
    free/T        θ and state of the backend's own trajectory, at the checkpoints
    digests       of θ and state after every update of it

The reference is numpy's exact tier (`walk`), the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from dualopt.exact import exact
from dualopt.executor import executor
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.planned import PlannedGroup
from dualopt.proposal import Proposal

from . import heading
from .cases import Case
from .digests import digest_of, tensors_of
from .nudged import nudged
from .undecided import unsures
from .walk import (
    Arrays,
    Moment,
    Moved,
    States,
    Step,
    by_scalars,
    checkpoints,
    driven,
    measured,
    moments,
    proposals,
    proposed,
    start,
    walk,
)

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]
ORACLE_FROM = 10  # updates; before, no error has gathered


def reference(
    case: Case, updates: int | None = None, *, oracle: bool = True, run: Iterable[Moment] | None = None
) -> Tensors:
    """start, after, undecided and, unless it is not wanted, oracle of a case, and its digests.

    Args:
        case: with microbatches it has neither start, undecided nor oracle, since nothing is judged by them.
        updates: the length; that of the case if unsaid.
        oracle: with the float64 runs.
        run: in whose place numpy's own is taken if unsaid.
    """
    length = case.updates if updates is None else updates
    at, kept = set() if case.streams else set(moments(length)), set(checkpoints(length))
    out: Tensors = {}
    digests = []
    undecided = {name: np.zeros(shape, np.int32) for name, shape in case.shapes.items()}
    before: tuple[Arrays, States] = start(case)
    if run is None:
        run = driven(case, "numpy", "exact", length) if case.streams else walk(case, length)
    for moment in run:
        t = moment.update
        if t in at:
            out |= _named(f"start/{t}", *before)
        if t in at | kept:
            out |= _named(f"after/{t}", moment.theta_after, moment.state_after)
        for name, unsure in ({} if case.streams else unsures(moment)).items():
            undecided[name] = np.where((undecided[name] == 0) & unsure, np.int32(t), undecided[name])
        before = moment.theta_after, moment.state_after
        digests.append(digest_of(*before))
    out["digests"] = np.array(digests, np.uint64)
    if not case.streams:
        out |= {f"undecided/{name}": x for name, x in undecided.items()}
    named = {f"{case.id}/{key}": x for key, x in out.items()}
    named |= directions(case, by_scalars(executor(exact(np))), named, length)
    return named | oracles(case, length) if oracle and has_oracle(case) else named


def has_oracle(case: Case) -> bool:
    """True if there is a float64 run of the whole trajectory."""
    return case.situation.name == "usual" and not case.streams


def oracles(case: Case, updates: int | None = None) -> Tensors:
    """θ of the float64 runs, at the checkpoints."""
    length = case.updates if updates is None else updates
    kept = {t for t in checkpoints(length) if t >= min(ORACLE_FROM, length)}
    made = list(proposals(case, Plan(case.recipe, dict(case.shapes)), length))
    out: Tensors = {}
    for moment in walk(case, length, _double(), made):
        if moment.update in kept:
            out |= _named(f"{case.id}/oracle/{moment.update}", moment.theta_after, {n: {} for n in moment.theta_after})
    for key, step in (("exactly", _double(exactly=True)), ("nudged", nudged(_double, case.spectral))):
        for moment in walk(case, length, step, made):
            if moment.update in kept:
                for name, x in moment.theta_after.items():
                    place = f"{moment.update}/{name}"
                    out[f"{case.id}/{key}/{place}"] = (x - out[f"{case.id}/oracle/{place}"]).astype(np.float32)
    return out


def lockstep(
    case: Case, backend: Backend, tier: str, known: Mapping[str, Array], updates: int | None = None
) -> Tensors:
    """lockstep of a case, from the start states in `known`; nothing of one with microbatches."""
    if case.streams:
        return {}
    length = case.updates if updates is None else updates
    step = step_of(backend, tier, case.dtype)
    out: Tensors = {}
    for moment in restarted(case, known, length):
        theta, state = dict(moment.theta_after), dict(moment.state_after)
        for name, (x, s) in step(moment.planned, moment.theta, moment.state, moment.gradient, moment.proposal).items():
            theta[name], state[name] = x, s
        out |= _named(f"{case.id}/lockstep/{moment.update}", theta, state)
    # Another executor: some keep the scalars of a group, and these rows have fewer.
    return out | directions(case, step_of(backend, tier, case.dtype), known, length)


def directions(case: Case, step: Step, known: Mapping[str, Array], updates: int) -> Tensors:
    """direction of a case, from the start states in `known`."""
    out: Tensors = {}
    if heading.declares(case):
        for moment in restarted(case, known, updates):
            if moment.update in heading.marks(updates):
                m = heading.shown(moment)
                moved = step(m.planned, m.theta, m.state, m.gradient, m.proposal)
                out |= {f"{case.id}/direction/{m.update}/{name}": u for name, (u, _) in moved.items() if u.size}
    return out


def free(case: Case, backend: Backend, tier: str, updates: int | None = None) -> Tensors:
    """free and digests of a case, by the same door that users have: `dualopt.replay.drive`."""
    run = Passing(case, updates)
    for moment in driven(case, backend.name, tier, updates):
        run.see(moment)
    return run.found()


class Passing:
    """free and digests of a run that passes by."""

    def __init__(self, case: Case, updates: int | None = None) -> None:
        self._prefix, self._kept = f"{case.id}/free", set(checkpoints(case.updates if updates is None else updates))
        self._digests: list[int] = []
        self._out: Tensors = {}
        self._case = case

    def see(self, moment: Moment) -> None:
        """The next update."""
        self._digests.append(digest_of(moment.theta_after, moment.state_after))
        if moment.update in self._kept:
            self._out |= _named(f"{self._prefix}/{moment.update}", moment.theta_after, moment.state_after)

    def found(self) -> Tensors:
        return self._out | {f"{self._case.id}/digests": np.array(self._digests, np.uint64)}


def step_of(backend: Backend, tier: str, dtype: str) -> Step:
    """One update by a backend, numpy arrays in and out."""
    execute = backend.execute(tier)

    def step(planned: PlannedGroup, theta: Arrays, state: States, gradient: Arrays, proposal: Proposal) -> Moved:
        moved = execute(
            planned,
            {n: backend.from_numpy(x, dtype) for n, x in theta.items()},
            {n: {k: backend.from_numpy(x, "float32") for k, x in s.items()} for n, s in state.items()},
            measured({n: backend.from_numpy(x, dtype) for n, x in gradient.items()}),
            proposal.scalars,
        )
        return {n: (backend.to_numpy(x), {k: backend.to_numpy(y) for k, y in s.items()}) for n, (x, s) in moved.items()}

    return step


def restarted(case: Case, known: Mapping[str, Array], updates: int) -> Iterator[Moment]:
    """The moments of the lockstep experiment from the start states in `known`.

    What they leave, `theta_after` and `state_after`, is what they began with: no update is carried out.
    Raises: KeyError for a start state that `known` lacks.
    """
    for t, planned, proposal in proposed(case, moments(updates)):
        prefix, gradient = f"{case.id}/start/{t}", case.gradient(t)
        theta = {n: known[f"{prefix}/{n}"] for n in case.shapes}
        state = {n: {k: known[f"{prefix}/{n}/{k}"] for k in planned.start(np, n, x)} for n, x in theta.items()}
        live = {n: theta[n] for n in gradient}
        yield Moment(t, planned, proposal, live, {n: state[n] for n in live}, gradient, theta, state)


def _double(xp: Any = np, exactly: bool = False) -> Step:
    """float64 steps; coefficients rounded to float32 unless `exactly`."""
    execute = executor(xp)

    def step(planned: PlannedGroup, theta: Arrays, state: States, gradient: Arrays, proposal: Proposal) -> Moved:
        scalars = {
            name: {key: x if exactly else float(np.float32(x)) for key, x in k.items()}
            for name, k in proposal.scalars.items()
        }
        wide = {n: {k: x.astype(np.float64) for k, x in s.items()} for n, s in state.items()}
        return execute(planned, _wide(theta), wide, measured(_wide(gradient)), scalars)

    return step


def _wide(arrays: Arrays) -> dict[str, Array]:
    return {name: x.astype(np.float64) for name, x in arrays.items()}


def _named(prefix: str, params: Arrays, state: States) -> Tensors:
    return {f"{prefix}/{tensor}": x for tensor, x in tensors_of(params, state)}
