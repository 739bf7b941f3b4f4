"""A recipe as a `torch.optim.Optimizer`.

The host part and the array part of a step are separate: `advance` moves the counts and derives the
scalars, `step` does so itself unless it was done, and never while its gradients are being traced or
captured, when Python would run only once: then it needs `advance` before, or raises. Steps that CUDA graphs
replay are in `captured`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from dualopt import cautions
from dualopt.agreement import Found, agreed
from dualopt.clipping import clipped
from dualopt.errors import CountError, DistributionError, GradientError, RecipeError, StaleScalarsError
from dualopt.microbatches import Evidence, stream_of
from dualopt.namespace import TIERS
from dualopt.plan import Plan
from dualopt.proposal import Proposal
from dualopt.recipe import TRUST, Recipe

from .adopting import Adopting
from .checking import all_finite, check_fit, suspects
from .distributed.dtensors import gradient_pieces
from .distributed.execute import Divided
from .distributed.joining import Share, joined, parallel_of
from .evaluation import Evaluating
from .execute import Executor, recorded
from .flat import Flat
from .kernels import working
from .parameters import Named, named_parameters
from .proposing import Proposing
from .remembering import LINED
from .untraced import untraced
from .watching import Watching


class Optimizer(Watching, Proposing, Evaluating, Adopting):
    """Carries out a recipe on a torch module, or on a mapping of names to parameters.

    Groups are the recipe's, and hold strings and numbers only: the coordinates in the base unit of the
    count, ``lr`` (the current η) and ``step`` (its peak). Without a schedule in the recipe ``lr`` may be
    written by torch's schedulers; with one it is written here, and a second writer is an error.

    ``state[p]`` holds the row's memories (float32 for half-precision parameters), what `rounding` of the group keeps
    beside these, ``tau``, the count that this
    parameter has lived, and running sums of the host if the row has some.

    Args:
        model: a module or a mapping; tied parameters count once.
        recipe: what to do.
        tier: ``"fast"`` or ``"exact"``.
        compiled: force the compiled kernels of the fast tier on or off; None: on for large groups.
        flat: lay the parameters of elementwise rows end to end in memory, in place, and their gradients too: see
            `flat`. For many short parameters. The bits stay.
        share: let the processes of this group (True: all) share out the directions of parameters that every one of
            them holds, with equal gradients. None: yes for `DistributedDataParallel`, with its group. Parameters that
            `fully_shard` has cut share theirs in any case.

    Raises:
        RecipeError: the recipe does not fit the parameters, or the tier is unknown.
        DistributionError: a row or a layout that cannot be updated over several processes.
    """

    def __init__(
        self,
        model: torch.nn.Module | Mapping[str, torch.Tensor],
        recipe: Recipe,
        *,
        tier: str = "fast",
        compiled: bool | None = None,
        flat: bool = False,
        share: Share = None,
    ) -> None:
        if tier not in TIERS:
            raise RecipeError(f"tier: {tier!r} is not one of {', '.join(TIERS)}")
        found = named_parameters(model)
        self._built = False
        self._named: Named = found.parameters
        self._frozen = found.frozen
        self.dtypes = {name: str(p.dtype).removeprefix("torch.") for name, p in self._named.items()}
        shapes = {name: tuple(p.shape) for name, p in self._named.items()}
        self.plan = Plan(recipe, shapes, float64=_all_double(found), dtypes=self.dtypes)
        self.tier = tier
        self._require_clippable()
        self._layout = joined(model, self._named, self.plan, share)
        if flat and (self._layout is not None or parallel_of(model) is not None):
            raise DistributionError("flat = True: wrappers over several processes lay out gradients in their own way")
        self._flat = Flat(self._named, self.plan) if flat else None
        self._execute = (
            Executor(tier, compiled, flat_storage=flat)
            if self._layout is None
            else Divided(tier, compiled, self._layout)
        )
        cautions.too_fine(self.plan.recipe.count, self.plan.groups, self.dtypes)
        self._ready: Proposal | None = None
        self._captured = False
        self._aside = None
        self._before = self.plan.saved_counts(), self.plan.saved_sums()
        self._forget_lines()
        self.discard()
        groups = [
            {
                "params": [(name, self._named[name]) for name in g.names],
                "name": g.group.name,
                "optimizer": g.group.optimizer,
                "lr": g.step,
                "tau": 0,
                **g.action,
            }
            for g in self.plan.groups
        ]
        super().__init__(groups, {})
        self._written = [group["lr"] for group in self.param_groups]
        self._built = True
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self._make_all()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Groups come from the recipe. RecipeError after construction."""
        if getattr(self, "_built", False):
            raise RecipeError("parameter groups come from the recipe: add a [[group]] and make a new optimizer")
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but hooks, the monitor, what graphs refer to, and the `step` that schedulers and trainers put in
        place of this one's, bound to this very optimizer: so copies and pickles work. Torch's own are of less."""
        self._settle()
        left_out = {"monitor", "step", "_stage", *LINED}
        return {key: x for key, x in self.__dict__.items() if not key.startswith("_optimizer_") and key not in left_out}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """The inverse: what is lined up is found again."""
        super().__setstate__(saved)
        self._forget_lines()
        if self._flat is not None:
            self._flat = Flat(self._named, self.plan)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's. With `flat` and without `set_to_none` gradients are made 0 at once, in their places."""
        if set_to_none or self._flat is None or not self._flat.zero():
            super().zero_grad(set_to_none)

    @untraced
    @torch.no_grad()
    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        count: int | None = None,
        microbatches: object = None,
        samples: object = None,
    ) -> Any:
        """One update of every parameter that has a gradient.

        Args:
            closure: re-evaluates the model and returns the loss.
            count: Δτ of this update in the recipe's base unit; default: its `per_update`.
            microbatches: the gradients of this update as an iterable of {name: tensor}, read as a stream, in
                place of those in ``p.grad`` or accumulated.
            samples: the same of the loss under sampled labels, or one such mapping: what estimates the
                curvature in rows that read it.

        Raises:
            GradientError, NonFiniteError: bad gradients, or fewer than the row needs; nothing has changed.
            CountError: bad `count`, or one given although `advance` was called.
            StaleScalarsError: captured or traced without `advance`.
            EvaluationError: after `eval` without `train`.
            DistributionError: another process cannot carry out the same update; nothing has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._stage is not None:
            self._require_training("step()")
            if microbatches is not None or samples is not None or self._told is not None:
                raise StaleScalarsError("microbatches are folded by the host: not after opt.capturable()")
            self._on_device(self._stage, count)
            return loss
        try:
            found = self._everywhere(lambda: self._evidence(count, microbatches, samples))
        except BaseException:
            self._roll_back()
            raise
        if found is None:
            self.discard()
            self._roll_back()
            return loss
        evidence, proposal = clipped(self._execute.xp, self.plan.groups, found[0], working), found[1]
        names = tuple(evidence)
        count = self.plan.tau - (proposal.dtau if self._ready else 0)  # before this update
        measured = self._measurement(proposal, count, evidence)
        self._carry_out([line.update(evidence, proposal.scalars) for line in self._lined(names)], measured)
        self.discard()
        self._finish(proposal, evidence)
        self._chosen = names
        if measured and self.monitor is not None:
            self.monitor.write(proposal, count, measured.sums())
        return loss

    def _everywhere(self, find: Callable[[], Found]) -> Found | None:
        """What `find` gives, if the other processes agree; None: the update is skipped."""
        return find() if self._layout is None else agreed(self._layout.wire, self.plan.tau, find)

    def _evidence(self, count: int | None, microbatches: object, samples: object) -> tuple[Evidence, Proposal] | None:
        """What this step has measured, and the proposal that it carries out; None: the update is skipped."""
        self._require_training("step()")
        if self.monitor is not None:
            self._refuse_sharded("a monitor")
        if microbatches is None and samples is None and self._told is not None:
            if count not in (None, self._told):
                raise CountError(f"accumulate() was told the update's count, {self._told}; call step() without count")
            return self._accumulated()
        if self._told is not None:
            raise GradientError("accumulated gradients are waiting: call step() without gradients, or discard() them")
        if self._flat is not None and microbatches is None and samples is None:
            whole = self._flat.whole()
            if whole is not None and self._sound(self._flat):
                return whole, self._proposal(self._flat.places, count)
        given = self._present() if microbatches is None else stream_of(microbatches)
        return self._streamed(given, samples, lambda named: self._proposal(named, count))

    def _require_clippable(self) -> None:
        """RecipeError for a group with `clip` on several devices: the length of its gradient is computed on one."""
        for planned in self.plan.groups:
            if planned.group.clip is not None and len({self._named[name].device for name in planned.names}) > 1:
                raise RecipeError(
                    f"group {planned.group.name!r}: clip is of gradients on one device; make a group for each device"
                )

    def _sound(self, flat: Flat) -> bool:
        """True if gradients that are all in their places can be used as they are, without a look at each."""
        self._check_frozen()
        trusted = recorded(flat.places) or self.plan.recipe.nonfinite == TRUST
        return trusted or not suspects(flat.arrays, self.plan.harmless)

    def _check_frozen(self) -> None:
        """RecipeError for a parameter that requires gradients, and did not when the optimizer was made."""
        thawed = next((name for name, p in self._frozen.items() if p.requires_grad), None)
        if thawed is not None:
            raise RecipeError(f"{thawed!r} was frozen when the optimizer was made, and is not in it; make a new one")

    def _require_fit(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """GradientError for gradients that do not fit, RecipeError for parameters that are not in the optimizer."""
        self._check_frozen()
        check_fit(gradients, self._named, self.plan)

    def _check(self, gradients: Mapping[str, torch.Tensor]) -> bool:
        """False for an update to skip. Raises GradientError for gradients that do not fit."""
        self._require_fit(gradients)
        if self._sharded:
            gradients = gradient_pieces(gradients, self._named)
        trusted = recorded(gradients) or self.plan.recipe.nonfinite == TRUST
        return trusted or all_finite(gradients, self.plan)


def _all_double(found: Any) -> bool:
    return all(p.dtype == torch.float64 for p in found.parameters.values())
