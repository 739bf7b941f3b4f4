"""The weights to evaluate at, in the model or mapping that the optimizer was made for: see `dualopt.evaluation`."""

from __future__ import annotations

from typing import Any

from dualopt import evaluation

from .namespace import FAST
from .parameters import Named, merge, narrowed, replaced, tree_of, values_of, working
from .saving import Saving


class Evaluating(evaluation.Evaluating, Saving):
    """The part of `Optimizer` that evaluates."""

    def averaged(self) -> Any:
        """The tree of the weights to evaluate at, as ``model.update`` takes it; the model stays as it is."""
        found = self._elsewhere()
        present = values_of(tree_of(self._model), self._shapes, self._shapes)
        return replaced(tree_of(self._model), self._with_tied(present | found)) or {}

    def _elsewhere(self) -> Named:
        self._settle()
        counts, memory = self.plan.counts, self._store.tree["memory"]
        found: Named = {}
        for planned in self.plan.groups:
            names = [name for name in planned.names if planned.row.motion.averages and counts[name]]
            for name, x in values_of(tree_of(self._model), dict.fromkeys(names), self._shapes).items():
                found[name] = narrowed(planned.evaluated(FAST, name, working(x), memory[name]), x)
        return found

    def _held(self, names: Named) -> Named:
        return values_of(tree_of(self._model), names, self._shapes)

    def _put(self, values: Named) -> None:
        new = replaced(tree_of(self._model), self._with_tied(values))  # under all names of tied ones
        if new is not None:
            merge(self._model, new)
