"""Continuing what another MLX optimizer began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx import optimizers as mlx_optimizers

from dualopt.convert import reading, source, states
from dualopt.plan import RUN

from .parameters import flatten, tree_of, values_of, working
from .saving import Saving


class Adopting(Saving):
    """The part of `Optimizer` that takes over."""

    def adopt(
        self,
        other: mlx_optimizers.Optimizer | Mapping[str, Any],
        origin: str,
        *,
        per_update: int | None = None,
    ) -> None:
        """Continue from the memories and the step number of another optimizer, for the parameters that it has.

        The parameters themselves are those of the model. With the recipe that `dualopt convert` makes of its knobs the
        next updates are those that it would have made. Take over several, one after the other, where parameters
        were spread over them.

        Args:
            other: the optimizer, its ``state``, or what `tree_flatten` makes of that.
            origin: which one it is: ``mlx-adamw``, ``mlx-muon``, ... (`dualopt.convert.SOURCES`).
            per_update: Δτ of its updates; default: that of the recipe.

        Raises:
            CheckpointError: it does not fit; nothing has changed then.
            EvaluationError: after `eval` without `train`.
        """
        self._require_training("adopt()")
        self._settle()
        found = source(origin)
        state = other.state if isinstance(other, mlx_optimizers.Optimizer) else other
        kept = {name: _widened(arrays) for name, arrays in reading.split("the state", flatten(state)).items()}
        one = states.adopt(
            self.plan, found, kept, per_update=per_update, dampening=float(getattr(other, "dampening", 0.0))
        )
        begun = self._start(values_of(tree_of(self._model), one.state, self._shapes))
        for name, memories in one.state.items():
            storage = self.plan.groups[self.plan.group_of[name]].row.storage
            memories |= {key: begun[name][key] for key in (() if storage is None else storage.keys)}
        counts = {**self.plan.saved_counts(), **one.counts}
        counts[RUN] = max(counts.values())
        self._install(counts, self.plan.saved_sums(), counts[RUN] // self.plan.recipe.count.per_update, one.state)


def _widened(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of one parameter in float32, and its step number on the host."""
    return {key: working(x) if mx.issubdtype(x.dtype, mx.floating) else x.item() for key, x in arrays.items()}
