"""The host's part of a step: counts move, and the scalars of the next update are derived."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import torch

from dualopt.coordinates import COORDINATES
from dualopt.errors import CountError, RecipeError, StaleScalarsError
from dualopt.microbatches import GRADIENT, Evidence
from dualopt.proposal import Proposal

from .captured import Capturing
from .execute import capturing, recorded


class Proposing(Capturing):
    """The part of `Optimizer` that knows what the next update is."""

    _captured: bool
    _written: list[float]
    _require_training: Any  # of `evaluation`

    def advance(self, count: int | None = None, names: Iterable[str] | None = None) -> None:
        """Move the counts and fill the scalars for the next step: the host part, for captured steps.

        Args:
            count: Δτ of the update; default: the recipe's `per_update`.
            names: the parameters that will have gradients; default: all that require them.

        Raises:
            EvaluationError: after `eval` without `train`.
            NonFiniteError, StaleScalarsError: what steps after `capturable` have to report.
        """
        self._require_training("advance()")
        self._settle()
        self._roll_back()
        chosen = [n for n, p in self._named.items() if p.requires_grad] if names is None else list(names)
        proposal = self._propose(count, chosen)
        self._require_recorded(proposal)
        self._before = self.plan.saved_counts(), self.plan.saved_sums()
        self.plan.commit(proposal)
        self._ready = proposal
        self._fill(proposal)

    def compile(self, step: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """``torch.compile(step)`` preceded by `advance`: call the result with ``count=``.

        The optimizer's own part of the step stays outside the graph, where its kernels are compiled once
        per rule; forward and backward passes are compiled as torch sees fit.
        """
        inner = torch.compile(step, **options)

        def run(*args: Any, count: int | None = None, **kwargs: Any) -> Any:
            self.advance(count)
            try:
                return inner(*args, **kwargs)
            except BaseException:
                self._roll_back()
                raise

        return run

    def _propose(self, count: int | None, names: Iterable[str]) -> Proposal:
        """A proposal from the groups as they are now."""
        self._check_groups()
        steps = [float(group["lr"]) for group in self.param_groups]
        if self.plan.scheduled:
            for group, written in zip(self.param_groups, self._written, strict=True):
                if group["lr"] != written:
                    raise RecipeError(
                        f"group {group['name']!r}: the recipe's schedule sets lr, but it was changed from "
                        f"{written!r} to {group['lr']!r}; drop the LR scheduler or the [schedule]"
                    )
        return self.plan.propose(count, names, self.param_groups, None if self.plan.scheduled else steps)

    def _check_groups(self) -> None:
        """RecipeError for a group that was written with something that cannot be carried out."""
        for group, planned in zip(self.param_groups, self.plan.groups, strict=True):
            where = f"group {group['name']!r}"
            for key, value in planned.action.items():
                if group[key] == value:
                    continue
                if COORDINATES[key].decides:
                    raise RecipeError(
                        f"{where}: {key} decides what is computed and cannot change; make a new optimizer"
                    )
                COORDINATES[key].check(group[key], where)
            if not (math.isfinite(group["lr"]) and group["lr"] >= 0):
                raise RecipeError(f"{where}: lr must be finite and >= 0, got {group['lr']!r}")

    def _proposal(self, gradients: Mapping[str, torch.Tensor], count: int | None) -> Proposal:
        """The proposal that this step carries out: the advanced one, or a new one."""
        if capturing():
            raise StaleScalarsError("a captured step finds its scalars on the device: call opt.capturable() before")
        if self._ready is None:
            if recorded(gradients):
                raise StaleScalarsError(
                    "step() is being traced or captured with scalars of an earlier update: "
                    "call opt.advance(count) before every run of the captured step"
                )
            return self._propose(count, gradients)
        if count is not None:
            raise CountError("advance() has already counted this update; call step() without count")
        if set(self._ready.scalars) == set(gradients):
            return self._ready
        if recorded(gradients):
            raise StaleScalarsError(
                "the captured gradients are of other parameters than advance() was told; pass names="
            )
        dtau = self._ready.dtau
        self._roll_back()
        return self._propose(dtau, gradients)

    def _roll_back(self) -> None:
        """Undo an `advance` that no step has used; a captured step runs unseen, and has used it."""
        if self._ready is not None and not self._captured:
            self.plan.restore(*self._before)
            self._ready = None
            if self._stage is not None:
                self._stage.withdraw()

    def _finish(self, proposal: Proposal, evidence: Evidence) -> None:
        """Make counts and lr those of the update that has just been carried out."""
        if self._ready is None:
            self.plan.commit(proposal)
        self._ready = None
        self._captured = recorded({name: x[GRADIENT] for name, x in islice(evidence.items(), 1) if x})
        self._lived(proposal)

    def _lived(self, proposal: Proposal) -> None:
        """Write down what parameters have lived, and η of the groups."""
        kept = self._kept
        for cohort in proposal.cohorts:
            lived = {"tau": cohort.clock.tau, **cohort.clock.sums}
            for name in cohort.names:
                kept[name].update(lived)
        for i, group in enumerate(self.param_groups):
            group["tau"] = self.plan.tau
            if self.plan.scheduled:
                group["lr"] = self._written[i] = proposal.steps[i]
