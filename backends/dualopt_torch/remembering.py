"""The memories of parameters: made before the first update, and lined up with them for the next ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch

from dualopt.agreement import Traffic
from dualopt.errors import DistributionError
from dualopt.plan import Plan
from dualopt.planned import PlannedGroup

from .distributed.dtensors import is_sharded, local, sharded_like
from .distributed.layouts import Layout
from .flat import Flat
from .namespace import EXACT
from .parameters import Named
from .placing import placed
from .route import Update

LINED = ("_lines", "_kept", "_all_kept", "_chosen")  # attributes that are found again where they are missing


@dataclass(frozen=True)
class Line:
    """A group, θ and memories of those of its parameters that are updated; `all`: no other group is."""

    planned: PlannedGroup
    theta: Named
    state: dict[str, Named]
    all: bool
    of_state: tuple[str, ...]  # the keys of every parameter's state

    def update(self, evidence: Mapping[str, Named], k: Mapping[str, Mapping[str, float]]) -> Update:
        """The update of these parameters by this evidence."""
        given = evidence if self.all else {name: evidence[name] for name in self.theta}
        return Update(self.planned, self.theta, self.state, given, k)

    def present(self, kept: Mapping[str, Mapping[str, Any]]) -> bool:
        """True if `kept`, by name, holds the very tensors of `state`."""
        if not self.of_state:
            return True
        here = map(itemgetter(*self.of_state), map(kept.__getitem__, self.state))
        held = chain.from_iterable(here) if len(self.of_state) > 1 else here
        return all(map(is_, held, chain.from_iterable(map(dict.values, self.state.values()))))


class Remembering(torch.optim.Optimizer):
    """The part of `Optimizer` that keeps ``state``."""

    plan: Plan
    _named: Named
    _flat: Flat | None  # where parameters and gradients lie end to end; None: where the user put them
    _layout: Layout | None  # over several processes; None: there is this one

    @property
    def traffic(self) -> Traffic | None:
        """What this process has exchanged with others for its updates; None where it depends on no other."""
        return None if self._layout is None else self._layout.wire.traffic

    @property
    def _sharded(self) -> bool:
        return self._layout is not None and self._layout.sharded

    def _refuse_sharded(self, what: str) -> None:
        """DistributionError where parameters are sharded."""
        if self._sharded:
            raise DistributionError(f"{what} is not there for sharded parameters")

    def _forget_lines(self) -> None:
        """Line up anew before the next update."""
        self._lines: list[Line] = []
        self._kept: dict[str, dict[str, Any]] = {}  # by name, of what is lined up
        self._all_kept: list[dict[str, Any]] = []
        self._chosen: tuple[str, ...] = ()

    def _lined(self, names: tuple[str, ...]) -> list[Line]:
        """The groups with those of their parameters that are updated, and the memories of these."""
        if names == self._chosen and self._untouched():
            return self._lines
        chosen, self._lines = frozenset(names), []
        for planned in self.plan.groups:
            here = [name for name in planned.names if name in chosen]
            if here:
                self._make(planned, here)
                state = {name: _tensors(self.state[self._named[name]]) for name in here}
                theta = {name: self._named[name] for name in here}
                self._lines.append(Line(planned, theta, state, len(here) == len(names), tuple(state[here[0]])))
        self._kept = {name: self.state[self._named[name]] for name in names}
        self._chosen, self._all_kept = (), list(self.state.values())  # `step` names them when it has succeeded
        return self._lines

    def _untouched(self) -> bool:
        """True if `state` holds the very tensors that were lined up."""
        if len(self.state) != len(self._all_kept) or not all(map(is_, self.state.values(), self._all_kept)):
            return False
        try:
            return all(line.present(self._kept) for line in self._lines)
        except KeyError:  # a memory is missing
            return False

    def _state(self, name: str) -> Named:
        """The memories of a parameter, made before its first update in its working type."""
        kept = self.state[self._named[name]]
        if not kept.get("tau"):
            self._make(self.plan.groups[self.plan.group_of[name]], [name])
        return _tensors(kept)

    def _make(self, planned: PlannedGroup, names: Iterable[str]) -> None:
        """Make the memories of those parameters that have none yet."""
        fresh = {name: self._start(name) for name in names if not self.state[self._named[name]].get("tau")}
        for name, memories in self._placed(planned, fresh).items() if fresh else ():
            self.state[self._named[name]].update(tau=0, **memories)

    def _make_all(self) -> None:
        """The memories of all parameters, and 0 for their running sums: what `torch.distributed.checkpoint` loads
        into. Without any it would make some, by a step."""
        for planned in self.plan.groups:
            self._make(planned, planned.names)
            for name in planned.names:
                self.state[self._named[name]].update(dict.fromkeys(planned.sums, 0.0))

    def _placed(self, planned: PlannedGroup, fresh: Mapping[str, Named]) -> dict[str, Named]:
        """Memories where updates find them, sharded as their parameters are; `fresh`: what this process holds."""
        like = {name: local(self._named[name].detach()) for name in fresh}
        found = placed(planned, fresh, like, flat_storage=self._flat is not None)
        return {n: {key: sharded_like(x, self._named[n]) for key, x in s.items()} for n, s in found.items()}

    def _start(self, name: str) -> Named:
        """The memories that a parameter begins with; of a sharded one those of the piece that is here."""
        p, planned = self._named[name].detach(), self.plan.groups[self.plan.group_of[name]]
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        theta = local(p).to(dtype, memory_format=torch.contiguous_format)
        begun = planned.row.init(EXACT, theta) if is_sharded(p) else planned.start(EXACT, name, theta)
        return {key: x.to(self._type(name, key)) for key, x in begun.items()}

    def _type(self, name: str, key: str) -> torch.dtype:
        """The type of a memory: that which the parameter is computed in, but for what its storage keeps in its own."""
        dtype, storage = self._named[name].dtype, self.plan.groups[self.plan.group_of[name]].row.storage
        if dtype == torch.float64 or (storage is not None and key in storage.narrow):
            return dtype
        return torch.float32

    def _memories(self, name: str) -> Named:
        """The memories of a parameter, or what they will begin with."""
        return self._state(name) if self.state.get(self._named[name], {}).get("tau") else self._start(name)


def _tensors(kept: Mapping[str, Any]) -> Named:
    return {key: x for key, x in kept.items() if isinstance(x, torch.Tensor)}
