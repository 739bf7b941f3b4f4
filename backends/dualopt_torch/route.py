"""What the ways of carrying out an update have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch

from dualopt.planned import PlannedGroup

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Update:
    """One update of a group, to be carried out in place on θ and state.

    Attributes:
        planned: the group.
        theta: {name: parameter}: those that are left to update.
        state, evidence: {name: {key: tensor}}, of these and perhaps of others.
        k: {name: scalars}, likewise; parameters that have lived the same share one object.
    """

    planned: PlannedGroup
    theta: Tensors
    state: Mapping[str, Tensors]
    evidence: Mapping[str, Tensors]
    k: Mapping[str, Mapping[str, float]]

    def without(self, names: Collection[str]) -> Update:
        """The same of the other parameters."""
        return replace(self, theta={name: x for name, x in self.theta.items() if name not in names})


Route = Callable[[Update], Collection[str]]  # the names of what it has updated; the rest is left to others


def keep(state: Tensors, s: Tensors) -> None:
    """State in place, where it has changed."""
    for key, old in state.items():
        if s[key] is not old:
            old.copy_(s[key])
