"""Updates that are recorded once and replayed: what a CUDA graph needs of an optimizer.

A replay runs no Python. So what changes from update to update lies on the device, at addresses that stay:

    scalars    one vector for the parameters that have lived the same, written by `advance`
    control    fresh: these scalars belong to an update that has not happened
               missed: replays that found none       bad: the gradient that was not finite, by place, or 0

A replay carries the update out if it is fresh and no gradient is bad, and otherwise leaves every array as it is. The
host hears of it at its next touch (`advance`, a snapshot, evaluation), before it derives anything from counts. So
counts are those of the updates that happened, and the bits are those of the same steps outside of a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from dualopt.clipping import clipped
from dualopt.errors import CountError, DistributionError, GradientError, NonFiniteError, RecipeError, StaleScalarsError
from dualopt.microbatches import single
from dualopt.plan import Plan
from dualopt.proposal import Proposal
from dualopt.recipe import TRUST

from .checking import bounded
from .distributed.layouts import Layout
from .execute import Executor, capturing
from .kernels import working
from .microbatches import Microbatches
from .remembering import Line
from .route import OnDevice


@dataclass(frozen=True)
class Report:
    """What replays have left in `control`."""

    fresh: bool
    missed: int
    bad: int


class Stage:
    """Scalars and control of the next update, on `device`."""

    def __init__(self, device: torch.device) -> None:
        self.control = torch.zeros(3, dtype=torch.int64, device=device)
        self.scalars: dict[str, OnDevice] = {}
        self.lines: list[Line] = []
        self.used = False  # a step outside of graphs has carried out what was filled in
        self.recorded = False  # a graph refers to the tensors that are here now
        self._cohorts: tuple[tuple[str, ...], ...] = ()

    def holds(self, proposal: Proposal) -> bool:
        """True if the tensors that are here are those of this update."""
        return self._cohorts == tuple(cohort.names for cohort in proposal.cohorts)

    def fill(self, proposal: Proposal, lines: list[Line]) -> None:
        """The next update is this one, of these memories."""
        if not self.holds(proposal):
            like = {name: x for line in lines for name, x in line.theta.items()}
            made = [(c.names, OnDevice(tuple(c.scalars), like[c.names[0]])) for c in proposal.cohorts]
            self.scalars = {name: k for names, k in made for name in names}
            self._cohorts = tuple(cohort.names for cohort in proposal.cohorts)
        self.lines, self.used = lines, False
        for cohort in proposal.cohorts:
            vector = self.scalars[cohort.names[0]].vector
            vector.copy_(torch.tensor(list(cohort.scalars.values()), dtype=vector.dtype))
        self.control[0].fill_(1)

    def withdraw(self) -> None:
        """No update is ready."""
        self.control[0].fill_(0)

    def consume(self, bad: torch.Tensor) -> torch.Tensor:
        """The device's part: 0-d, whether the update happens; it is not fresh any more. `bad`: 0-d, a place or 0."""
        fresh, missed, before = self.control.unbind()
        ok = (fresh == 1) & (bad == 0)
        after = torch.stack([torch.zeros_like(fresh), missed + (1 - fresh), torch.where(fresh == 1, bad, before)])
        self.control.copy_(after)
        return ok

    def report(self) -> Report:
        """Read by the host, which waits for the device; what was wrong is forgotten."""
        fresh, missed, bad = self.control.tolist()
        self.control[1:].fill_(0)
        return Report(bool(fresh), missed, bad)


class Capturing(Microbatches):
    """The part of `Optimizer` whose steps can be captured."""

    _stage: Stage | None = None
    _ready: Proposal | None
    _captured: bool
    _before: tuple[dict[str, int], dict[str, dict[str, float]]]
    _layout: Layout | None
    _execute: Executor
    plan: Plan

    def capturable(self) -> None:
        """From now on `step` reads scalars from the device and nothing from it, so that CUDA graphs can be made of it.

        Call `advance(count)` before every step and every replay, on the stream that they run on. Captured steps are of
        one device and one process; take some steps outside of a graph first, as with any capture. Call it again before
        another capture.

        Raises:
            DistributionError: updates of several processes, which agree on each by the host.
            RecipeError: parameters on several devices.
        """
        if self._layout is not None:
            raise DistributionError("a step of several processes cannot be captured: they agree on it by the host")
        devices = {p.device for p in self._named.values()}
        if len(devices) > 1:
            raise RecipeError(f"a captured step is of one device, parameters are on {sorted(map(str, devices))}")
        self._settle()
        self._roll_back()
        self._captured = False
        self._stage = Stage(devices.pop())
        flat = self._execute.flat_storage
        self._execute = Executor(self.tier, self._execute.compiled, launched=False, flat_storage=flat)

    def _require_recorded(self, proposal: Proposal) -> None:
        """StaleScalarsError for an update that the graph which was captured cannot carry out."""
        stage = self._stage
        if stage is not None and stage.recorded and not (stage.holds(proposal) and self._untouched()):
            raise StaleScalarsError(
                "the captured step is of other parameters than this update, of parameters that have not lived the same "
                "any more, or of memories before a checkpoint was loaded: call opt.capturable() and capture again"
            )

    def _fill(self, proposal: Proposal) -> None:
        """Put a proposal where captured steps find it."""
        if self._stage is not None:
            lines = self._lined(proposal.names)
            self._chosen = proposal.names  # these memories are the ones from now on, whatever becomes of the update
            self._stage.fill(proposal, lines)

    def _on_device(self, stage: Stage, count: int | None) -> None:
        """One update by what lies on the device. Captured, it reads nothing: the next `advance` says what was wrong."""
        if stage.used and not capturing():
            self._settle()
        gradients, ready = self._present(), self._ready
        self._require_fit(gradients)
        if not gradients:
            raise GradientError("no parameter has a gradient: call step() after backward()")
        if capturing():
            if ready is None or set(ready.names) != set(gradients):
                raise StaleScalarsError(
                    "this step is being captured without scalars of its own: call opt.advance(count) before it, with "
                    "names= where not all parameters have gradients"
                )
            stage.recorded = True
        elif ready is None:
            self.advance(count, gradients)
        elif count is not None:
            raise CountError("advance() has already counted this update; call step() without count")
        elif set(ready.names) != set(gradients):
            self.advance(ready.dtau, gradients)
        assert self._ready is not None
        gradients = {name: gradients[name] for name in self._ready.names}
        evidence = clipped(self._execute.xp, self.plan.groups, single(self.plan, gradients), working)
        trusts = self.plan.recipe.nonfinite == TRUST
        stage.used = not capturing()
        ok = stage.consume(stage.control.new_zeros(()) if trusts else first_bad(gradients, self.plan))
        for line in stage.lines:
            arrays = [*line.theta.values(), *(x for s in line.state.values() for x in s.values())]
            before = [] if trusts else [x.detach().clone() for x in arrays]
            self._execute.carry_out([line.update(evidence, stage.scalars)])  # type: ignore[arg-type]
            for x, old in zip(arrays, before, strict=False):
                x.copy_(torch.where(ok, x, old))

    def _settle(self) -> None:
        """Take over what steps on the device did, and report what they refused.

        Raises:
            StaleScalarsError, NonFiniteError: as said there; counts are those of what happened.
        """
        if self._stage is None:
            return
        report, ready = self._stage.report(), self._ready
        if ready is not None and not report.fresh:
            self._ready = None
            if report.bad:
                self.plan.restore(*self._before)
            else:
                self._lived(ready)
        if report.missed:
            raise StaleScalarsError(
                f"{report.missed} captured update(s) ran without opt.advance(count) before them"
                + (": with old scalars" if self.plan.recipe.nonfinite == TRUST else ", and changed nothing")
            )
        if report.bad and ready is not None and self.plan.recipe.nonfinite == "raise":
            raise NonFiniteError(
                f"the gradient of {ready.names[report.bad - 1]!r} held NaN, infinity or numbers too large to square in "
                "a captured step; nothing was changed. Find the cause, or set nonfinite = 'skip' in the recipe"
            )

    def advance(self, count: int | None = None, names: Iterable[str] | None = None) -> None:
        raise NotImplementedError

    def _require_fit(self, gradients: Mapping[str, torch.Tensor]) -> None:
        raise NotImplementedError

    def _lived(self, proposal: Proposal) -> None:
        """Write down what parameters have lived."""
        raise NotImplementedError

    def _roll_back(self) -> None:
        raise NotImplementedError


def first_bad(gradients: Mapping[str, torch.Tensor], plan: Plan) -> torch.Tensor:
    """0-d: the place of the first gradient that is not finite, or too large to square, from 1; 0 without any."""
    bad = torch.stack([~bounded(g, plan.largest(name)) for name, g in gradients.items()])
    return torch.where(bad.any(), bad.to(torch.int64).argmax() + 1, 0)
