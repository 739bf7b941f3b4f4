"""The reference: a case carried out in numpy's exact tier, one update at a time.

Every machine computes the same bits here, so the states before and after each update need not travel:
a lockstep experiment starts a backend from them. `checkpoints` and `moments` say which updates are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualopt.exact import exact
from dualopt.executor import Execute, executor
from dualopt.plan import Plan, PlannedGroup, Proposal
from dualopt.storage import rounded

from .cases import LATE, Case
from .digests import digest_of

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
States = Mapping[str, Arrays]
Moved = Mapping[str, tuple[Any, Mapping[str, Any]]]
# One update: (group, θ, state, gradient, proposal) -> {name: (θ+, s+)}, all numpy arrays.
Step = Callable[[PlannedGroup, Arrays, States, Arrays, Proposal], Moved]


@dataclass(frozen=True)
class Moment:
    """One update of one group: what it started from and what it left. θ holds values of the storage type.

    `theta`, `state` and `gradient` have the parameters with gradients only, `theta_after` and
    `state_after` all of them.
    """

    update: int  # counted from 1
    planned: PlannedGroup
    proposal: Proposal
    theta: Arrays
    state: States
    gradient: Arrays
    theta_after: Arrays
    state_after: States


def by_scalars(execute: Execute) -> Step:
    """The step of an executor of numpy arrays."""
    return lambda planned, theta, state, gradient, proposal: execute(
        planned, dict(theta), {n: dict(s) for n, s in state.items()}, measured(gradient), proposal.scalars
    )


def measured(gradient: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The evidence that consists of gradients alone."""
    return {name: {"gradient": g} for name, g in gradient.items()}


def walk(case: Case, updates: int | None = None, step: Step | None = None) -> Iterator[Moment]:
    """The case update by update; `step` takes the place of numpy's exact tier."""
    step = step or by_scalars(executor(exact(np)))
    plan = Plan(case.recipe, dict(case.shapes))
    (planned,) = plan.groups
    theta = case.parameters()
    state: dict[str, Arrays] = {name: planned.start(np, name, x) for name, x in theta.items()}
    increments = case.increments(updates)
    for t, (gradient, dtau) in enumerate(zip(case.gradients(updates), increments, strict=True), 1):
        proposal = plan.propose(dtau, gradient)
        here, kept = {n: theta[n] for n in gradient}, {n: state[n] for n in gradient}
        with np.errstate(under="ignore", over="ignore"):
            for name, (moved, s) in step(planned, here, kept, gradient, proposal).items():
                theta[name], state[name] = rounded(moved, case.dtype), s
        plan.commit(proposal)
        yield Moment(t, planned, proposal, here, kept, gradient, dict(theta), dict(state))


def digest_of_start(case: Case) -> int:
    """The digest of θ and state before the first update."""
    planned = Plan(case.recipe, dict(case.shapes)).groups[0]
    theta = case.parameters()
    return digest_of(theta, {name: planned.start(np, name, x) for name, x in theta.items()})


def checkpoints(updates: int) -> list[int]:
    """The updates whose tensors are kept: 1, 2, 5, 10, ... and the last."""
    marks = [m * 10**p for p in range(10) for m in (1, 2, 5)]
    return sorted({m for m in marks if m < updates} | {updates})


def moments(updates: int) -> list[int]:
    """The updates of the lockstep experiment: the first ones, that in which "late" joins, and some to the end."""
    wanted = {1, 2, 3, LATE, LATE + 1, updates // 10, updates // 3, updates}
    return sorted(m for m in wanted if 1 <= m <= updates)
