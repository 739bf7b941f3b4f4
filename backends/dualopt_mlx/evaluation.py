"""The weights to evaluate at: x of averaged motions, in place in the model or as a tree.

``eval()`` puts them into the model and keeps the arrays that were trained aside; ``train()`` puts those back.
Rows that do not average are evaluated where they are trained, and parameters that have never been updated too.
All of this is the host's: outside compiled functions, which see the arrays that the model holds when they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dualopt.errors import EvaluationError

from .namespace import FAST
from .parameters import Named, merge, narrowed, replaced, tree_of, values_of, working
from .saving import Saving


class Evaluating(Saving):
    """The part of `Optimizer` that evaluates."""

    def eval(self) -> None:
        """Put the weights to evaluate at into the model or mapping that the optimizer was made for.

        Again, or without an averaged row, it does nothing. Until `train`, updates raise; snapshots and `state`
        are of the training all the same.
        """
        if self._aside is None and any(planned.row.motion.averages for planned in self.plan.groups):
            found = self._elsewhere()
            self._aside = values_of(tree_of(self._model), found, self._shapes)
            self._put(found)

    def train(self) -> None:
        """Put the weights that are trained back into the model; nothing if they are there."""
        if self._aside is not None:
            self._put(self._aside)
            self._aside = None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """`eval` for the length of a ``with`` block, and then as it was before."""
        before = self._aside
        self.eval()
        try:
            yield
        finally:
            if before is None:
                self.train()

    def averaged(self) -> Any:
        """The tree of the weights to evaluate at, as ``model.update`` takes it; the model stays as it is."""
        found = self._elsewhere()
        present = values_of(tree_of(self._model), self._shapes, self._shapes)
        return replaced(tree_of(self._model), self._with_tied(present | found)) or {}

    def _elsewhere(self) -> Named:
        """{name: weights to evaluate at} of the parameters for which they are not θ."""
        self._settle()
        counts, memory = self.plan.counts, self._store.tree["memory"]
        found: Named = {}
        for planned in self.plan.groups:
            names = [name for name in planned.names if planned.row.motion.averages and counts[name]]
            for name, x in values_of(tree_of(self._model), dict.fromkeys(names), self._shapes).items():
                found[name] = narrowed(planned.evaluated(FAST, name, working(x), memory[name]), x)
        return found

    def _put(self, values: Named) -> None:
        """Put arrays into the model, under all names of tied ones."""
        new = replaced(tree_of(self._model), self._with_tied(values))
        if new is not None:
            merge(self._model, new)

    def _require_training(self, what: str) -> None:
        if self._aside is not None:
            raise EvaluationError(
                f"{what}: the model holds the averaged weights, which are for evaluation; call opt.train() first"
            )
