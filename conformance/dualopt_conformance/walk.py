"""The reference: a case carried out in numpy's exact tier, one update at a time.

Every machine computes the same bits here, so the states before and after each update need not travel:
a lockstep experiment starts a backend from them. `checkpoints` and `moments` say which updates are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualopt.clock import Clock
from dualopt.exact import exact
from dualopt.executor import Execute, executor
from dualopt.plan import RUN, Plan
from dualopt.planned import PlannedGroup
from dualopt.proposal import Cohort, Proposal
from dualopt.replay import drive
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


def walk(
    case: Case, updates: int | None = None, step: Step | None = None, known: Iterable[Proposal] | None = None
) -> Iterator[Moment]:
    """The case update by update; `step` takes the place of numpy's exact tier.

    `known` are the proposals of all updates, where they have been made already. Where gradients come as microbatches
    see `driven`.
    """
    step = step or by_scalars(executor(exact(np)))
    plan = Plan(case.recipe, dict(case.shapes))
    (planned,) = plan.groups
    theta, state = start(case)
    made = proposals(case, plan, updates) if known is None else known
    for t, (gradient, proposal) in enumerate(zip(case.gradients(updates), made, strict=True), 1):
        here, kept = {n: theta[n] for n in gradient}, {n: state[n] for n in gradient}
        with np.errstate(under="ignore", over="ignore"):
            for name, (moved, s) in step(planned, here, kept, gradient, proposal).items():
                theta[name], state[name] = rounded(moved, case.dtype), s
        yield Moment(t, planned, proposal, here, kept, gradient, dict(theta), dict(state))


def driven(case: Case, backend: str, tier: str, updates: int | None = None) -> Iterator[Moment]:
    """The case on a backend, by the door that users have (`dualopt.replay.drive`), microbatches and all."""
    length = case.updates if updates is None else updates
    (planned,) = Plan(case.recipe, dict(case.shapes)).groups
    theta: Arrays
    state: States
    theta, state = start(case)
    made = drive(
        case.recipe,
        theta,
        (case.microbatches(t) for t in range(1, length + 1)),
        case.increments(length),
        samples=(case.sampled(t) for t in range(1, length + 1)) if case.samples else None,
        backend=backend,
        tier=tier,
        dtype=case.dtype,
    )
    for t, found in enumerate(made, 1):
        gradient = case.gradient(t)
        here, kept = {n: theta[n] for n in gradient}, {n: state[n] for n in gradient}
        theta, state = found.params, found.state
        cohorts = tuple(Cohort(0, (name,), (), Clock(0, 0), dict(k)) for name, k in found.scalars.items())
        proposal = Proposal(0, tuple(found.scalars), cohorts, ())
        yield Moment(t, planned, proposal, here, kept, gradient, theta, state)


def proposals(case: Case, plan: Plan, updates: int | None) -> Iterator[Proposal]:
    """What the host proposes for every update, each committed before the next."""
    for t, dtau in enumerate(case.increments(updates), 1):
        proposal = plan.propose(dtau, case.gradient(t))
        plan.commit(proposal)
        yield proposal


def proposed(case: Case, updates: list[int]) -> Iterator[tuple[int, PlannedGroup, Proposal]]:
    """(update, the group, what the host proposes for it); without the updates between where counts alone decide."""
    plan = Plan(case.recipe, dict(case.shapes))
    (planned,) = plan.groups
    if planned.row.tally(planned.action, Clock(1, 1)):  # running sums need every update
        made = enumerate(proposals(case, plan, max(updates)), 1)
        yield from ((t, planned, proposal) for t, proposal in made if t in updates)
        return
    increments = case.increments(max(updates))
    first = {name: LATE if name == "late" else 1 for name in (RUN, *case.shapes)}
    for t in updates:
        plan.restore({name: sum(increments[since - 1 : t - 1]) for name, since in first.items()}, {})
        yield t, planned, plan.propose(increments[t - 1], case.gradient(t))


def start(case: Case) -> tuple[dict[str, Array], dict[str, Arrays]]:
    """θ and state before the first update."""
    (planned,) = Plan(case.recipe, dict(case.shapes)).groups
    theta, tier = case.parameters(), exact(np)  # some rows begin with lengths, which are sums
    return theta, {name: planned.start(tier, name, x) for name, x in theta.items()}


def digest_of_start(case: Case) -> int:
    """Their digest."""
    return digest_of(*start(case))


def checkpoints(updates: int) -> list[int]:
    """The updates whose tensors are kept: 1, 2, 5, 10, ... and the last."""
    marks = [m * 10**p for p in range(10) for m in (1, 2, 5)]
    return sorted({m for m in marks if m < updates} | {updates})


def moments(updates: int) -> list[int]:
    """The updates of the lockstep experiment: the first ones, that in which "late" joins, and some to the end."""
    wanted = {1, 2, 3, LATE, LATE + 1, updates // 10, updates // 3, updates}
    return sorted(m for m in wanted if 1 <= m <= updates)
