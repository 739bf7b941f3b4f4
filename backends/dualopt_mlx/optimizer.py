"""A recipe as an `mlx.optimizers.Optimizer`.

The host part and the array part of an update are separate. `advance` derives the scalars of an update
and writes them into `state` as arrays; `update` does so itself, unless it is being traced: Python runs
only once then, and the compiled step needs an `advance` before every call. `compile` sees to it.

Counts move when an update has happened. An eager update is refused before anything changes; a compiled
one finds out on the device, changes nothing by a mask, and the next call to the host part reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mlx.core as mx
from mlx import nn

from dualopt import cautions
from dualopt.agreement import Traffic, agreed
from dualopt.errors import CountError, NonFiniteError, RecipeError, StaleScalarsError
from dualopt.plan import Plan
from dualopt.proposal import Proposal
from dualopt.recipe import Recipe
from dualopt.watch import Monitor

from .adopting import Adopting
from .compiling import guarded
from .distributed import joined
from .evaluation import Evaluating
from .execute import can_compile, executor_of
from .parameters import (
    Tree,
    dtype_name,
    merge,
    replaced,
    trained,
    tree_of,
    values_of,
)
from .state import State
from .updating import Updating
from .watching import Watching


class Optimizer(Updating, Evaluating, Adopting):
    """Carries out a recipe on an MLX module, or on a mapping of dotted names to arrays.

    State is float32 whatever the parameters are, but for Kahan's compensation, which has their type; half-precision
    parameters are computed in float32 and rounded once, as `rounding` of their group says. Tied parameters (the same
    array under two names) count once and move together.

    Args:
        model: the trainable parameters of a module, or all of a mapping. Make the optimizer before the
            first gradient: `nn.value_and_grad` hides which arrays were tied.
        recipe: what to do.
        tier: ``"fast"``, or ``"exact"`` (the same bits on every framework; never compiled).
        share: let the processes of this group (True: all) share out the directions of parameters that every one of
            them holds, given equal gradients. See `docs/distributed.md`.

    Raises:
        RecipeError: the recipe does not fit the parameters, or the tier is unknown.
        DistributionError: a layer holds a piece of a matrix that its row needs whole.
    """

    def __init__(
        self, model: Tree, recipe: Recipe, *, tier: str = "fast", share: mx.distributed.Group | bool | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tier = tier
        self._execute = executor_of(tier)
        self._model = model
        parameters, self._tied = trained(model)
        self._shapes = {name: tuple(x.shape) for name, x in parameters.items()}
        self.dtypes = {name: dtype_name(x) for name, x in parameters.items()}
        self.plan = Plan(recipe, self._shapes, layout="channels_last", dtypes=self.dtypes)
        self._sharing = joined(model, self.plan, share, tier)
        cautions.too_fine(self.plan.recipe.count, self.plan.groups, self.dtypes)
        self._largest = {name: self.plan.largest(name) for name in self._shapes}
        self._store = State(self.plan, self._start(parameters))
        self._state = self._store.tree
        self._steps = self._before = tuple(g.step for g in self.plan.groups)
        self._ready: Proposal | None = None
        self._used = False  # whether a trace has made use of `_ready`
        self._aside = None
        self._watching = Watching(self._store)
        self._initialized = True

    def init(self, parameters: Tree) -> None:
        """Nothing: the state exists from the start."""

    def update(
        self,
        model: Tree,
        gradients: Tree | None = None,
        count: int | None = None,
        *,
        microbatches: Iterable[Tree] | None = None,
        samples: Tree | Iterable[Tree] | None = None,
    ) -> None:
        """One update of `model`, a module or a dictionary, as `apply_gradients` does it."""
        new = self.apply_gradients(gradients, model, count, microbatches=microbatches, samples=samples)
        if isinstance(model, nn.Module):
            model.update(new)
        else:
            merge(model, new)

    def apply_gradients(
        self,
        gradients: Tree | None,
        parameters: Tree,
        count: int | None = None,
        *,
        microbatches: Iterable[Tree] | None = None,
        samples: Tree | Iterable[Tree] | None = None,
    ) -> Any:
        """The parameters after one update; the given ones stay as they are.

        Args:
            gradients: a nested tree or {dotted name: array}. Parameters without gradient neither move
                nor age.
            parameters: those of the model, or more than those with gradients.
            count: Δτ in the recipe's base unit; default: its `per_update`.
            microbatches: in place of `gradients` an iterable of such trees, read as a stream: memory does not
                grow with their number, unless they are traced.
            samples: the same of the loss under sampled labels, or one such tree: what estimates the curvature in
                rows that read it.

        Returns:
            The branches of `parameters` that moved.

        Raises:
            GradientError, NonFiniteError: gradients that do not fit or are not finite, or fewer than a row needs.
            CountError: bad `count`, or one given although `advance` was called.
            StaleScalarsError: traced without `advance`.
            EvaluationError: after `eval` without `train`.
            Parameters, state and counts are as they were then, also before an `advance`.
        """
        tree = tree_of(parameters)
        try:
            moved = self._moved(tree, gradients, microbatches, samples, count)
        except Exception:
            self._drop()
            raise
        return replaced(tree, self._with_tied(moved)) or {}

    def advance(self, count: int | None = None, names: Iterable[str] | None = None) -> None:
        """The host part of the next update: derive its scalars and write them into `state`.

        Args:
            count: Δτ of the update; default: the recipe's `per_update`.
            names: the parameters that may have gradients; default: all.

        Raises:
            CountError, GradientError: bad count, unknown name.
            NonFiniteError, StaleScalarsError: what the last compiled update reports.
            EvaluationError: after `eval` without `train`.
        """
        self._settle()
        self._drop()

        def find() -> tuple[Proposal, Proposal]:
            self._require_training("advance()")
            everything = self.plan.propose(count, self._shapes)  # filled in all: steps compiled earlier may read others
            chosen = None if names is None else [self._tied.get(name, name) for name in names]
            return everything, everything if chosen is None else self.plan.propose(count, chosen)

        found = find() if self._sharing is None else agreed(self._sharing, self.plan.tau, find)
        assert found is not None  # nobody skips what has no gradients yet
        everything, ready = found
        self._anchor(self._model, self._shapes)
        self._fill(everything)
        self._ready = ready

    def compile(self, step: Callable[..., Any], *, inputs: Any = None, outputs: Any = None) -> Callable[..., Any]:
        """``mx.compile(step)`` preceded by `advance`: call the result with ``count=``.

        `step` calls `update` once. The arrays of the model and of this optimizer are captured; `inputs` and
        `outputs` are further trees, e.g. ``mx.random.state`` for dropout. In the exact tier, or without a
        compiler, `step` runs as it is. A second trace measures, for updates that a monitor wants. If it raises, all
        captured arrays are as they were.
        """
        state = [self._model, self._state]
        if self.tier == "exact" or not can_compile():
            return guarded(step, [], self.advance, self._drop)
        inner = mx.compile(step, inputs=[state, inputs], outputs=[state, outputs])
        also = mx.compile(
            self._watching.measuring(step), inputs=[state, inputs], outputs=[state, outputs, self._watching.sink]
        )

        def run(*args: Any, **kwargs: Any) -> Any:
            ready, at = self._ready, self.plan.tau
            if ready is None or not self._watching.due(ready, at):
                return inner(*args, **kwargs)
            found = also(*args, **kwargs)
            self._watching.write(ready, at)
            return found

        return guarded(run, [state, inputs, outputs], self.advance, self._drop)

    @property
    def traffic(self) -> Traffic | None:
        """What this process has sent and received; None if it works alone."""
        return None if self._sharing is None else self._sharing.traffic

    @property
    def monitor(self) -> Monitor | None:
        """What watches this optimizer: see `dualopt.Monitor`."""
        return self._watching.monitor

    @monitor.setter
    def monitor(self, monitor: Monitor | None) -> None:
        self._watching.monitor = monitor

    @property
    def counts(self) -> dict[str, int]:
        """The count that each parameter has lived."""
        self._settle()
        return dict(self.plan.counts)

    @property
    def count(self) -> int:
        """τ: the count of the run."""
        self._settle()
        return self.plan.tau

    @property
    def steps(self) -> dict[str, float]:
        """{group name: η of the latest update}; the peaks before the first."""
        return {g.group.name: eta for g, eta in zip(self.plan.groups, self._steps, strict=True)}

    @property
    def learning_rate(self) -> mx.array:
        """η of the first group, 0-d."""
        return self._state["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, value: object) -> None:
        raise RecipeError("the step of every group comes from the recipe: change 'step' or [schedule] there")

    def _anchor(self, model: Tree, names: Iterable[str]) -> None:
        """Let memories that start from θ start from what θ is now, where there was no update yet."""
        groups, of, counts = self.plan.groups, self.plan.group_of, self.plan.counts
        first = dict.fromkeys(name for name in names if groups[of[name]].anchored and not counts[name])
        if first:
            self._store.keep(self._start(values_of(tree_of(model), first, self._shapes)))

    def _proposal(self, named: Mapping[str, Any], count: int | None) -> Proposal:
        """The update of the parameters `named`: what is ready, or a new one."""
        ready = self._ready
        if ready is None:
            return self.plan.propose(count, named)
        if count is not None:
            raise CountError("advance() has already counted this update; call update() without count")
        left = next((name for name in named if name not in ready.clocks), None)
        if left is not None:
            raise StaleScalarsError(f"{left!r} has a gradient, but advance(names=...) left it out; name it there")
        return ready.only(named)

    def _fill(self, proposal: Proposal) -> None:
        self._before, self._steps = self._steps, proposal.steps
        self._store.fill(proposal)
        self._ready, self._used = proposal, False

    def _done(self) -> None:
        """Nothing is ready any more; the tree says what the plan says."""
        self._ready, self._used = None, False
        self._store.write(self._steps[0])

    def _drop(self) -> None:
        """Undo an `advance` that no update has used."""
        if self._ready is not None and not self._store.touched:
            self._steps = self._before
            self._done()

    def _settle(self) -> None:
        """Take over what compiled updates did, and report what they refused."""
        report = self._store.report()
        if report is None or report.fresh:
            return
        if report.updates == self._store.updates:
            self._steps = self._before
        self.plan.restore(report.counts, report.sums)
        self._store.updates = report.updates
        self._done()
        if report.missed:
            raise StaleScalarsError(
                f"{report.missed} compiled update(s) ran without opt.advance(count) before them, and changed nothing; "
                "call it before every call of the compiled step, or use opt.compile(step)"
            )
        if report.nonfinite is not None:
            self._refuse(report.nonfinite)

    def _refuse(self, name: str) -> None:
        """NonFiniteError, unless the recipe says to skip such updates."""
        if self.plan.recipe.nonfinite == "raise":
            raise NonFiniteError(
                f"the gradient of {name!r} holds NaN, infinity or numbers too large to square; nothing was "
                "changed. Find the cause, or set nonfinite = 'skip' in the recipe"
            )
