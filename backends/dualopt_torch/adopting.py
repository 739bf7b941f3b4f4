"""Continuing what another torch optimizer began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dualopt.convert import reading, source, states
from dualopt.errors import CheckpointError
from dualopt.plan import RUN

from .kernels import working
from .saving import Saving

Group = Mapping[str, Any]


class Adopting(Saving):
    """The part of `Optimizer` that takes over."""

    def _require_training(self, what: str) -> None:
        """EvaluationError while the model holds the weights to evaluate at."""
        raise NotImplementedError

    @torch.no_grad()
    def adopt(
        self,
        other: torch.optim.Optimizer | Mapping[str, Any],
        origin: str,
        *,
        names: Sequence[str] | None = None,
        updates: int | None = None,
        per_update: int | None = None,
    ) -> None:
        """Continue from the memories and step numbers of another optimizer, for the parameters that it has.

        The parameters themselves are those of the model. With the recipe that `dualopt convert` makes of its knobs the
        next updates are those that it would have made. Take over several, one after the other, where parameters
        were spread over them.

        Args:
            other: the optimizer, or its ``state_dict()``.
            origin: which one it is: ``torch-adamw``, ``heavy-ball-muon``, ... (`dualopt.convert.SOURCES`).
            names: of the parameters of a ``state_dict()``, in its order. Not needed where it has them (an optimizer
                made from ``named_parameters()``), or has one group of all parameters of the model.
            updates: how many it has carried out; needed where its state does not say.
            per_update: Δτ of these; default: that of the recipe.

        Raises:
            CheckpointError: it does not fit; nothing has changed then.
            EvaluationError: after `eval` without `train`.
        """
        self._require_training("adopt()")
        self._refuse_sharded("adopt()")
        found = source(origin)
        state: dict[str, Any] = {}
        counts: dict[str, int] = {}
        for group, kept in self._groups_of(other, names):
            if group.get("maximize"):
                raise CheckpointError("the optimizer maximizes, and rows descend: its memories have the other sign")
            one = states.adopt(
                self.plan,
                found,
                kept,
                updates=updates,
                per_update=per_update,
                dampening=float(group.get("dampening", 0.0)),
            )
            state |= {name: self._stored_beside(name) | memories for name, memories in one.state.items()}
            counts |= one.counts
        self._settle()
        self._roll_back()
        self.discard()
        before = self.plan.saved_counts()
        self.plan.restore(
            {**before, **counts, RUN: max(before[RUN], *counts.values())} if counts else before, self.plan.saved_sums()
        )
        self._install(state, counts)
        for i, group in enumerate(self.param_groups):
            group["tau"] = self.plan.tau
            if self.plan.scheduled and self.plan.tau:
                group["lr"] = self._written[i] = self.plan.current_step(i)

    def _stored_beside(self, name: str) -> dict[str, torch.Tensor]:
        """What the storage of a parameter begins with."""
        storage = self.plan.groups[self.plan.group_of[name]].row.storage
        return {} if storage is None else {key: x for key, x in self._start(name).items() if key in storage.keys}

    def _groups_of(
        self, other: torch.optim.Optimizer | Mapping[str, Any], names: Sequence[str] | None
    ) -> list[tuple[Group, dict[str, dict[str, Any]]]]:
        """The groups of another optimizer, each with {parameter: what is remembered of it}."""
        groups: Sequence[Group]
        if isinstance(other, torch.optim.Optimizer):
            groups, state = other.param_groups, other.state
            ours = {id(p): name for name, p in self._named.items()}
            of = {id(p): ours.get(id(p), f"a parameter of shape {tuple(p.shape)}") for g in groups for p in g["params"]}
            keys = [[(of[id(p)], p) for p in group["params"]] for group in groups]
        else:
            groups, state = other.get("param_groups", ()), other.get("state", {})
            sizes = [len(group["params"]) for group in groups]
            given = list(names) if names is not None else reading.named(groups, sizes, list(self._named), "the state")
            if len(given) != sum(sizes):
                raise CheckpointError(f"the state is of {sum(sizes)} parameters, and {len(given)} names were given")
            each = iter(given)
            keys = [[(next(each), p) for p in group["params"]] for group in groups]
        return [
            (group, {name: _widened(state[p]) for name, p in pairs if state.get(p)})
            for group, pairs in zip(groups, keys, strict=True)
        ]


def _widened(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of one parameter in the type that they are computed in; a buffer that is None is not there."""
    return {
        key: working(x) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for key, x in arrays.items()
        if x is not None
    }
