"""The weights to evaluate at: x of averaged motions, in place in the model or as a tree.

``eval()`` puts them into the model and keeps what was trained aside, bit for bit; ``train()`` puts that back.
Rows that do not average are evaluated where they are trained, and parameters that have never been updated too.
All of this is the host's: outside compiled functions, which see the arrays that the model holds when they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import EvaluationError
from .plan import Plan
from .recursion import Arrays


class Evaluating:
    """The part of a native optimizer that evaluates."""

    plan: Plan
    _aside: Arrays | None  # what is trained, while the model holds the weights to evaluate at

    def eval(self) -> None:
        """Put the weights to evaluate at into the model; again, or without an averaged row: nothing.

        Until `train`, updates raise; snapshots are of the training all the same.
        """
        if self._aside is None and any(planned.row.motion.averages for planned in self.plan.groups):
            found = self._elsewhere()
            self._aside = self._held(found)
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
        """The weights to evaluate at; the model stays as it is."""
        raise NotImplementedError

    def _elsewhere(self) -> Arrays:
        """{name: weights to evaluate at} of the parameters for which they are not θ."""
        raise NotImplementedError

    def _held(self, names: Arrays) -> Arrays:
        """{name: what the model holds now}, which stays as it is when the model changes."""
        raise NotImplementedError

    def _put(self, values: Arrays) -> None:
        """Put values into the model."""
        raise NotImplementedError

    def _require_training(self, what: str) -> None:
        if self._aside is not None:
            raise EvaluationError(
                f"{what}: the model holds the averaged weights, which are for evaluation; call opt.train() first"
            )
