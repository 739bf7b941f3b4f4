"""The weights to evaluate at, in the module's parameters: see `dualopt.evaluation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dualopt import evaluation
from dualopt.planned import PlannedGroup

from .distributed.dtensors import is_sharded, local, locals_of, sharded_like
from .kernels import working
from .namespace import FAST
from .saving import Saving


class Evaluating(evaluation.Evaluating, Saving):
    """The part of `Optimizer` that evaluates."""

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
        self._settle()
        return super().state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As `Saving.load_state_dict`; EvaluationError as for `state_dict`."""
        self._require_training("load_state_dict()")
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def _elsewhere(self) -> dict[str, torch.Tensor]:
        self._settle()
        found: dict[str, torch.Tensor] = {}
        for planned in self.plan.groups:
            if planned.row.motion.averages:
                for name in planned.names:
                    p = self._named[name]
                    if self.state[p].get("tau") if p in self.state else False:
                        found[name] = self._evaluated(planned, name)
        return found

    def _evaluated(self, planned: PlannedGroup, name: str) -> torch.Tensor:
        """Of one parameter; of a sharded one, whose row is elementwise, piece by piece."""
        p, state = self._named[name].detach(), self._state(name)
        if not is_sharded(p):
            whole: torch.Tensor = planned.evaluated(FAST, name, working(p), state)
            return whole
        piece = planned.row.evaluate(FAST, working(local(p)), locals_of(state), {})
        return sharded_like(piece, p)

    def _held(self, names: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._named[name].detach().clone() for name in names}

    @torch.no_grad()
    def _put(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, x in values.items():
            self._named[name].copy_(x)
