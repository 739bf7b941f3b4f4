"""What is recorded of a case: named arrays, made by the reference or by one backend in one tier.

    start/T       θ and state before update T of the reference        (T of `walk.moments`)
    after/T       the same after it, and at the checkpoints
    oracle/T      θ of a float64 run with coefficients rounded to float32;   oracle_exact/T with exact ones
    undecided     per element of θ: the first update in which rounding could turn a sign or a mask; 0 for never
    lockstep/T    θ and state after one update of the backend from start/T
    free/T        θ and state of the backend's own trajectory, at the checkpoints
    digests       of θ and state after every update of it

The reference is numpy's exact tier (`walk`), the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dualopt.directions.elementwise import Sign
from dualopt.directions.norm_balls import SignBall
from dualopt.executor import executor
from dualopt.memory import blend
from dualopt.namespace import Backend
from dualopt.plan import PlannedGroup, Proposal
from dualopt.recursion import Row
from dualopt.replay import drive
from dualopt.shrink import Cautious

from .cases import Case
from .digests import digest_of, tensors_of
from .metric import ulp
from .walk import Arrays, Moment, Moved, States, Step, checkpoints, measured, moments, proposed, start, walk

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]
UNDECIDED = 16  # ulp of what a sign was computed from, below which rounding could turn it
ORACLE_FROM = 10  # updates; before, no error has gathered


def decides(row: Row) -> bool:
    """True if the row takes signs or masks, which rounding may turn."""
    geometry, shrink = getattr(row.direction, "geometry", None), getattr(row.motion, "shrink", None)
    return isinstance(geometry, Sign | SignBall) or isinstance(shrink, Cautious)


def judged_freely(case: Case) -> bool:
    """False for rows that multiply matrices and take masks: their free runs in the fast tier are only shown."""
    return not (case.spectral and decides(case.row))


def reference(case: Case, updates: int | None = None, *, oracle: bool = True) -> Tensors:
    """start, after, undecided and, unless it is not wanted, oracle of a case, and its digests."""
    length = case.updates if updates is None else updates
    at, kept = set(moments(length)), set(checkpoints(length))
    out: Tensors = {}
    digests = []
    undecided = {name: np.zeros(shape, np.int32) for name, shape in case.shapes.items()}
    before: tuple[Arrays, States] = start(case)
    proposals = []
    for moment in walk(case, length):
        t = moment.update
        proposals.append(moment.proposal)
        if t in at:
            out |= _named(f"start/{t}", *before)
        if t in at | kept:
            out |= _named(f"after/{t}", moment.theta_after, moment.state_after)
        for name, unsure in _unsure(moment).items():
            undecided[name] = np.where((undecided[name] == 0) & unsure, np.int32(t), undecided[name])
        before = moment.theta_after, moment.state_after
        digests.append(digest_of(*before))
    out["digests"] = np.array(digests, np.uint64)
    out |= {f"undecided/{name}": x for name, x in undecided.items()}
    if oracle and case.situation.name == "usual":
        for key, exactly in (("oracle", False), ("oracle_exact", True)):
            for moment in walk(case, length, _double(exactly), proposals):
                if moment.update in kept and moment.update >= min(ORACLE_FROM, length):
                    out |= {f"{key}/{moment.update}/{n}": x for n, x in moment.theta_after.items()}
    return {f"{case.id}/{key}": x for key, x in out.items()}


def lockstep(
    case: Case, backend: Backend, tier: str, known: Mapping[str, Array], updates: int | None = None
) -> Tensors:
    """lockstep of a case, from the start states in `known`."""
    length = case.updates if updates is None else updates
    step = step_of(backend, tier, case.dtype)
    out: Tensors = {}
    for moment in restarted(case, known, length):
        theta, state = dict(moment.theta_after), dict(moment.state_after)
        for name, (x, s) in step(moment.planned, moment.theta, moment.state, moment.gradient, moment.proposal).items():
            theta[name], state[name] = x, s
        out |= _named(f"{case.id}/lockstep/{moment.update}", theta, state)
    return out


def free(case: Case, backend: Backend, tier: str, updates: int | None = None) -> Tensors:
    """free and digests of a case, by the same door that users have: `dualopt.replay.drive`."""
    length = case.updates if updates is None else updates
    kept = set(checkpoints(length))
    driven = drive(
        case.recipe,
        case.parameters(),
        case.gradients(length),
        case.increments(length),
        backend=backend.name,
        tier=tier,
        dtype=case.dtype,
    )
    out: Tensors = {}
    digests = []
    for t, found in enumerate(driven, 1):
        digests.append(digest_of(found.params, found.state))
        if t in kept:
            out |= _named(f"{case.id}/free/{t}", found.params, found.state)
    return out | {f"{case.id}/digests": np.array(digests, np.uint64)}


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


def _double(exactly: bool) -> Step:
    """float64 steps; coefficients rounded to float32 unless `exactly`."""
    execute = executor(np)

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


def _unsure(moment: Moment) -> dict[str, Array]:
    """Where z, or θ under a mask, is so small beside what it was computed from that rounding decides its sign."""
    if not decides(moment.planned.row):
        return {}
    masked = isinstance(getattr(moment.planned.row.motion, "shrink", None), Cautious)
    found = {}
    for name, g in moment.gradient.items():
        k, s = moment.proposal.scalars[name], moment.state_after[name]
        unsure = np.zeros(g.shape, bool)
        if "m" in s:
            z = blend(s["m"], g, np.float32(k["c_mu"]))
            scale = np.maximum(np.abs(s["m"]), np.abs(moment.state[name]["m"]))
            unsure |= _small(z, np.maximum(scale, k["c_m"] * np.abs(g)))
        if masked:
            unsure |= _small(moment.theta[name], 1.0)
        found[name] = unsure
    return found


def _small(x: Array, scale: Any) -> Array:
    """0 < scale, and |x| at most UNDECIDED of its ulp; an exact 0 made of zeros is decided."""
    return np.asarray((np.abs(x) <= UNDECIDED * ulp(scale, "float32")) & (np.asarray(scale) > 0))


def _named(prefix: str, params: Arrays, state: States) -> Tensors:
    return {f"{prefix}/{tensor}": x for tensor, x in tensors_of(params, state)}
