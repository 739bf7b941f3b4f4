"""What the ways of carrying out an update have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
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


class OnDevice(Mapping[str, torch.Tensor]):
    """The scalars of a cohort: `vector`, in the order of `row.needs`, and 0-d views of it by name."""

    def __init__(self, names: tuple[str, ...], like: torch.Tensor) -> None:
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        self.vector = torch.zeros(len(names), dtype=dtype, device=like.device)
        self._views = dict(zip(names, self.vector.unbind(), strict=True))

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


Route = Callable[[Update], Collection[str]]  # the names of what it has updated; the rest is left to others


def keep(state: Tensors, s: Tensors) -> None:
    """State in place, where it has changed."""
    for key, old in state.items():
        if s[key] is not old:
            old.copy_(s[key])
