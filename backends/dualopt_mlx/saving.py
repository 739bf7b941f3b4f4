"""Saving and loading: MLX's tree of arrays, and the portable snapshot of every backend."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import optimizers as mlx_optimizers

import dualopt
from dualopt.checkpoint import Origin, Snapshot, permuted, require, require_dtypes, require_recipe
from dualopt.errors import CheckpointError
from dualopt.plan import RUN, Plan
from dualopt.planned import PlannedGroup
from dualopt.recursion import Shape

from .namespace import EXACT
from .parameters import HALF, Named, Tree, merge, narrowed, replaced, tree_of, values_of, working
from .state import Memory, State

VERSIONS = f"dualopt {dualopt.__version__}, mlx {importlib.metadata.version('mlx')}"


def from_numpy(x: np.ndarray[Any, Any], dtype: str = "float32") -> mx.array:
    """A copy on MLX's default device."""
    return mx.array(np.asarray(x, dtype=np.float32)).astype(getattr(mx, dtype))


def to_numpy(x: mx.array) -> np.ndarray[Any, Any]:
    """A copy; half precision is widened to float32, which is exact."""
    return np.array(working(x) if x.dtype in HALF else x)


def from_snapshot(saved: Snapshot, parameters: Named, start: Callable[[Named], Memory]) -> tuple[Named, Memory]:
    """(parameters, memories) of a snapshot. A parameter that has never been updated may be saved without.

    Args:
        saved: of any backend.
        parameters: the present ones, for shapes and dtypes.
        start: parameters -> the memories before the first update.

    Raises:
        CheckpointError: other parameters, shapes, dtypes or memories.
    """
    require(saved, {name: tuple(x.shape) for name, x in parameters.items()}, where="snapshot")
    memory: Memory = {}
    require_dtypes(saved, {name: HALF.get(x.dtype, "F32") for name, x in parameters.items()}, where="snapshot")
    values = {n: mx.array(np.asarray(saved.parameters[n], np.float32)).astype(x.dtype) for n, x in parameters.items()}
    begun = start(values)
    for name, x in parameters.items():
        found, expected = saved.state.get(name, {}), begun[name]
        if not found and not saved.counts.get(name, 0):
            memory[name] = expected
            continue
        shapes = {key: tuple(np.shape(s)) for key, s in found.items()}
        if shapes != {key: tuple(s.shape) for key, s in expected.items()}:
            raise CheckpointError(
                f"snapshot: state of {name!r} is {shapes}, the recipe keeps {', '.join(expected)} of shape {x.shape}; "
                f"to begin with its weights alone: transplant.restarted(snapshot, [{name!r}])"
            )
        memory[name] = {key: narrowed(from_numpy(found[key]), s) for key, s in expected.items()}
    return values, memory


class Saving(mlx_optimizers.Optimizer):
    """The part of `Optimizer` that saves and loads."""

    plan: Plan
    tier: str
    _model: Tree
    _tied: dict[str, str]
    _shapes: dict[str, Shape]
    _store: State
    _steps: tuple[float, ...]
    _aside: Named | None

    def _settle(self) -> None:
        """Take over what compiled updates did."""
        raise NotImplementedError

    def _done(self) -> None:
        """Nothing is ready any more; the tree says what the plan says."""
        raise NotImplementedError

    def _require_training(self, what: str) -> None:
        """EvaluationError while the model holds the weights to evaluate at."""
        raise NotImplementedError

    @property
    def state(self) -> Any:
        """The tree of arrays (see `state`): capture it in `mx.compile`, save it, assign a saved one."""
        return self._state

    @state.setter
    def state(self, saved: Any) -> None:
        self._require_training("opt.state = ...")
        self._install(*self._store.check(saved))

    def snapshot(self) -> Snapshot:
        """Copies of the parameters of the model or mapping, state and counts: the portable checkpoint.

        The parameters are those that are trained, also while others are evaluated.
        """
        self._settle()
        parameters = values_of(tree_of(self._model), self._shapes, self._shapes) | (self._aside or {})
        here = Snapshot(
            {name: to_numpy(x) for name, x in parameters.items()},
            {name: {key: to_numpy(x) for key, x in s.items()} for name, s in self._store.tree["memory"].items()},
            self.plan.saved_counts(),
            {name: HALF[x.dtype] for name, x in parameters.items() if x.dtype in HALF},
            self.plan.saved_sums(),
            Origin(self.plan.recipe.to_toml(), self.tier, VERSIONS),
        )
        return permuted(here, {name: self._portable(name) for name in here.parameters}, self._apart())

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of any backend, in training: parameters of the model or mapping, state, counts.

        Raises:
            CheckpointError: it does not fit; nothing has changed then.
        """
        tree = tree_of(self._model)
        present = values_of(tree, self._shapes, self._shapes)
        require_recipe(snapshot, self.plan.recipe, where="snapshot")
        inverse = {name: tuple(np.argsort(self._portable(name)).tolist()) for name in present}
        snapshot = permuted(snapshot, inverse, self._apart())
        values, memory = from_snapshot(snapshot, present, self._start)
        updates = snapshot.counts.get(RUN, 0) // self.plan.recipe.count.per_update  # their number is not saved
        self._install(snapshot.counts, snapshot.sums, updates, memory)
        self._aside = None
        merge(self._model, replaced(tree, self._with_tied(values)))

    def _portable(self, name: str) -> tuple[int, ...]:
        """The permutation of the axes of a parameter to those of snapshots."""
        return self.plan.groups[self.plan.group_of[name]].views[name].portable

    def _start(self, parameters: Named) -> Memory:
        """The memories before the first update."""
        groups, of = self.plan.groups, self.plan.group_of
        return {name: self._begun(groups[of[name]], name, x) for name, x in parameters.items()}

    def _begun(self, planned: PlannedGroup, name: str, x: mx.array) -> dict[str, mx.array]:
        storage = planned.row.storage
        narrow = () if storage is None else storage.narrow
        state = planned.start(EXACT, name, working(x))
        return {key: narrowed(s, x) if key in narrow else s for key, s in state.items()}

    def _with_tied(self, values: Named) -> Named:
        """The same arrays, also under the further names of tied parameters."""
        return values | {second: values[first] for second, first in self._tied.items() if first in values}

    def _apart(self) -> dict[str, frozenset[str]]:
        """{parameter: the keys of its state that have a shape of their own}."""
        return {name: self.plan.groups[i].row.apart for name, i in self.plan.group_of.items()}

    def _install(
        self, counts: Mapping[str, int], sums: Mapping[str, Mapping[str, float]], updates: int, memory: Memory
    ) -> None:
        """Continue from saved counts, sums and memories. CheckpointError, before any change, if they do not fit."""
        self.plan.restore(counts, sums)
        self._store.updates = updates
        self._store.keep(memory)
        self._steps = tuple(self.plan.current_step(i) for i in range(len(self.plan.groups)))
        self._done()
