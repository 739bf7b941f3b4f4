"""The weights to evaluate at: x of averaged motions, in place in the model or as a tree.

``eval()`` puts them into the model and keeps what was trained aside, bit for bit; ``train()`` puts that back.
Rows that do not average are evaluated where they are trained, and parameters that have never been updated too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from dualopt.errors import EvaluationError

from .execute import working
from .namespace import FAST
from .saving import Saving


class Evaluating(Saving):
    """The part of `Optimizer` that evaluates."""

    def _state(self, name: str) -> dict[str, torch.Tensor]:
        """The memories of a parameter."""
        raise NotImplementedError

    @torch.no_grad()
    def eval(self) -> None:
        """Put the weights to evaluate at into the model; again, or without an averaged row: nothing.

        Until `train`, `step` raises; snapshots are of the training all the same.
        """
        if self._aside is not None or not any(planned.row.motion.averages for planned in self.plan.groups):
            return
        found = self._elsewhere()
        self._aside = {name: self._named[name].detach().clone() for name in found}
        for name, x in found.items():
            self._named[name].copy_(x)

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights that are trained back into the model; nothing if they are there."""
        for name, y in (self._aside or {}).items():
            self._named[name].copy_(y)
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

    @torch.no_grad()
    def averaged(self) -> dict[str, torch.Tensor]:
        """{name: a copy of the weights to evaluate at}, for ``torch.func.functional_call`` or to be saved."""
        found = self._elsewhere()
        return {
            n: found[n].to(p.dtype, copy=True) if n in found else p.detach().clone() for n, p in self._named.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """As torch's.

        Raises:
            EvaluationError: the model holds the weights to evaluate at, which a training does not continue from.
        """
        self._require_training("state_dict()")
        return super().state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `Saving.load_state_dict`; EvaluationError as for `state_dict`."""
        self._require_training("load_state_dict()")
        super().load_state_dict(state_dict)

    def _elsewhere(self) -> dict[str, torch.Tensor]:
        """{name: weights to evaluate at, in the working type} of the parameters for which they are not θ."""
        found: dict[str, torch.Tensor] = {}
        for planned in self.plan.groups:
            if planned.row.motion.averages:
                for name in planned.names:
                    p = self._named[name]
                    if self.state[p].get("tau") if p in self.state else False:
                        found[name] = planned.evaluated(FAST, name, working(p.detach()), self._state(name))
        return found

    def _require_training(self, what: str) -> None:
        if self._aside is not None:
            raise EvaluationError(
                f"{what}: the model holds the averaged weights, which are for evaluation; call opt.train() first"
            )
